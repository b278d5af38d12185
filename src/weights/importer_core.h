// What the importers of all dialects share: which tensors were asked for, checks with messages that name the tensor,
// and the way from the tensors of one matrix to a canonical weight.
#pragma once

#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "weights/importer.h"
#include "weights/stored_matrix.h"

namespace nibble {

// A vector as a checkpoint stores it.
struct StoredVector {
  std::string tensor;                  // its name
  bool is_one_by_one = false;          // one for each expert, whose number the * in the name stands for
  bool are_interleaved_pairs = false;  // of two vectors; this one's elements are first, first + 2, …
  int64_t first = 0;
};

// The name with the number of expert e for its *.
std::string numbered(const std::string& name, int64_t e);

class Importer : public WeightSource {
 public:
  explicit Importer(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {}

  bool has_vector(const TensorName& vector) const final;
  void check_vector(const VectorRequest& request) final;
  MatrixInfo describe(const MatrixRequest& request) final;
  CanonicalWeight read_without_floats_check(const MatrixRequest& request) final;
  std::vector<float> read_vector(const VectorRequest& request) final;
  std::vector<std::string> tensors_of(const MatrixRequest& request) final;
  std::vector<std::string> tensors_of(const VectorRequest& request) final;
  std::vector<std::string> unknown_tensors() const final;
  std::vector<UnusedTensor> unused_tensors() const final;

 protected:
  // The dialect's part. locate asks for tensors with take; load takes bytes as they are (borrow, if is_borrowed) or writes new
  // ones (own); unused_reason knows what is of no use here, whichever the model, and why; empty for everything else.
  virtual StoredMatrix locate(const MatrixRequest& request) = 0;
  virtual bool is_borrowed(const MatrixRequest& request, const StoredMatrix& stored) const = 0;
  virtual CanonicalWeight load(const MatrixRequest& request, const StoredMatrix& stored) const = 0;
  virtual StoredVector locate_vector(const TensorName& name) const = 0;
  virtual std::string_view unused_reason(const Tensor& tensor) const = 0;

  const Checkpoint& checkpoint() const { return *checkpoint_; }

  // The tensor, which now counts as asked for. Throws InputError if there is none of that name.
  const Tensor& take(const std::string& name);
  const Tensor* take_if_present(const std::string& name);

  void expect_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) const;
  // [N, columns], or [E, N, columns] if there are experts. One expert may be either: some writers drop the 1.
  void expect_columns(const Tensor& tensor, const MatrixRequest& request, int64_t columns) const;
  void expect_dtype(const Tensor& tensor, std::initializer_list<DType> dtypes) const;
  // Throws InputError if rows of K cannot be whole groups.
  void expect_whole_groups(const Tensor& tensor, int64_t K, int64_t group) const;
  // Throws InputError if the rows cannot be pairs in each of so many heads; 0 heads: they need not be.
  void expect_pairs(const Tensor& tensor, int64_t num_rows, int num_heads) const;

  template <class... Args>
  [[noreturn]] void fail(const Tensor& tensor, fmt::format_string<Args...> format, Args&&... args) const {
    throw_input_error("{}: {}", where(tensor), fmt::format(format, std::forward<Args>(args)...));
  }
  std::string where(const Tensor& tensor) const;

  // The weight whose codes and scales are the tensors' bytes; whoever read these gives it its storage.
  CanonicalWeight borrow(const MatrixRequest& request, const StoredMatrix& stored) const;
  // The weight with room for its codes and scales, of any value, to be written through the two pointers.
  struct OwnedWeight {
    CanonicalWeight weight;
    uint8_t* codes;
    uint8_t* scales;
  };
  OwnedWeight own(const MatrixRequest& request, const StoredMatrix& stored) const;

 private:
  CanonicalWeight read_located(const MatrixRequest& request, const StoredMatrix& stored,
                               const std::shared_ptr<const void>& bytes) const;
  // The tensor of a vector, or one for each expert.
  std::vector<const Tensor*> take_vector(const VectorRequest& request, const StoredVector& stored);
  std::vector<std::string> end_recording();
  std::vector<float> tensor_scales(const MatrixRequest& request, const StoredMatrix& stored) const;
  bool is_slice(const MatrixRequest& request) const;  // of a matrix of the file, by heads
  StoredMatrix locate_in_file(const MatrixRequest& request);

  std::shared_ptr<const Checkpoint> checkpoint_;
  mutable BufferPool buffers_;  // that tensors are read into, and put in our order
  std::mutex mutex_;            // of what follows
  std::set<std::string, std::less<>> asked_for_;
  std::optional<std::vector<std::string>> recorded_;  // if there, gets each name that is taken
};

// The row of a GGUF file of the llama architecture that holds row n of the model: see MatrixRequest. 0 heads: n.
inline int64_t gguf_row(int64_t n, int64_t num_rows, int num_heads) {
  if (num_heads == 0) return n;
  const int64_t head_dim = num_rows / num_heads, head = n / head_dim, row = n % head_dim;
  return head * head_dim + row % (head_dim / 2) * 2 + row / (head_dim / 2);
}

// Element i of a tensor of F32, F16, BF16 or F8_E8M0.
float element(const Tensor& tensor, int64_t i);

// The format whose rows are plain elements of this type. Null optional if there is none.
std::optional<FormatId> plain_format(DType dtype);

// Why tensors are not used: what both containers have.
inline constexpr std::string_view kActivationScale = "activation scale; activations are not 4 bits wide here";
inline constexpr std::string_view kPredictionLayer = "layer that predicts more than the next token";

// Whether the tensor is of one of `count` layers from number `first` on; its number follows the prefix.
bool is_of_layers(std::string_view tensor, std::string_view prefix, int64_t first, int64_t count);

// Slices by heads (HeadSlice): the matrix that the file has, and the slice of it. Transposed FP4 keeps its codes and
// scales; other transposed weights become floats that hold them exactly.
MatrixRequest sliced_matrix(const MatrixRequest& slice);
CanonicalWeight slice_heads(const CanonicalWeight& weight, const MatrixRequest& slice);
FormatId transposed_format(FormatId format);

// One maker a container.
std::unique_ptr<WeightSource> make_safetensors_importer(std::shared_ptr<const Checkpoint> checkpoint);
std::unique_ptr<WeightSource> make_gguf_importer(std::shared_ptr<const Checkpoint> checkpoint);

}  // namespace nibble
