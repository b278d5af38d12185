// What the importers of all dialects share: which tensors were asked for, checks with messages that name the tensor,
// and the way from the tensors of one matrix to a canonical weight.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "weights/importer.h"

namespace nibble {

// A matrix as a checkpoint stores it: its tensors are found, and have the right types and shapes. No byte is read yet.
struct StoredMatrix {
  FormatId format;  // of the canonical weight
  const Tensor* codes = nullptr;
  const Tensor* scales = nullptr;        // null: there are none, or they lie between the codes (GGUF)
  const Tensor* biases = nullptr;        // MLX affine only
  const Tensor* tensor_scale = nullptr;  // null: 1
  bool tensor_scale_divides = false;     // the file's value is 1 / tensor_scale
  std::string source;                    // for MatrixInfo
};

class Importer : public WeightSource {
 public:
  explicit Importer(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {}

  bool has_vector(const TensorName& vector) const final;
  void check_vector(const VectorRequest& request) final;
  MatrixInfo describe(const MatrixRequest& request) final;
  CanonicalWeight read(const MatrixRequest& request) final;
  std::vector<float> read_vector(const VectorRequest& request) final;
  void release(const MatrixRequest& request) final;
  std::vector<std::string> unknown_tensors() const final;
  std::vector<std::string> unused_tensors() const final;

 protected:
  // The dialect's part. locate asks for tensors with take; load may take bytes as they are (borrow) or write new ones
  // (own); is_unused knows what is of no use here, whichever the model.
  virtual StoredMatrix locate(const MatrixRequest& request) = 0;
  virtual CanonicalWeight load(const MatrixRequest& request, const StoredMatrix& stored) const = 0;
  virtual const std::string& name_of(const TensorName& name) const = 0;
  virtual bool is_unused(const Tensor& tensor) const = 0;

  const Checkpoint& checkpoint() const { return *checkpoint_; }

  // The tensor, which now counts as asked for. Throws InputError if there is none of that name.
  const Tensor& take(const std::string& name);
  const Tensor* take_if_present(const std::string& name);

  void expect_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) const;
  // [N, columns], or [E, N, columns] if there are experts.
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

  // The weight whose codes and scales are the file's bytes.
  CanonicalWeight borrow(const MatrixRequest& request, const StoredMatrix& stored) const;
  // The weight with room for its codes and scales, zeroed, to be written through the two pointers.
  struct OwnedWeight {
    CanonicalWeight weight;
    uint8_t* codes;
    uint8_t* scales;
  };
  OwnedWeight own(const MatrixRequest& request, const StoredMatrix& stored) const;

 private:
  const Tensor& take_vector(const VectorRequest& request);
  std::vector<float> tensor_scales(const MatrixRequest& request, const StoredMatrix& stored) const;
  // The file's matrix of which the request is a slice by heads, or the request itself.
  MatrixRequest in_file(const MatrixRequest& request) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::set<std::string, std::less<>> asked_for_;
};

// The row of a GGUF file of the llama architecture that holds row n of the model: see MatrixRequest. 0 heads: n.
inline int64_t gguf_row(int64_t n, int64_t num_rows, int num_heads) {
  if (num_heads == 0) return n;
  const int64_t head_dim = num_rows / num_heads, head = n / head_dim, row = n % head_dim;
  return head * head_dim + row % (head_dim / 2) * 2 + row / (head_dim / 2);
}

// The format whose rows are plain elements of this type. Null optional if there is none.
std::optional<FormatId> plain_format(DType dtype);

// E heads of a matrix of E * head_rows rows: see HeadSlice. Transposed weights become floats that hold them exactly: of
// the format that transposed_format gives.
CanonicalWeight slice_heads(const CanonicalWeight& weight, const MatrixRequest& request);
FormatId transposed_format(FormatId format);

// One maker a container.
std::unique_ptr<WeightSource> make_safetensors_importer(std::shared_ptr<const Checkpoint> checkpoint);
std::unique_ptr<WeightSource> make_gguf_importer(std::shared_ptr<const Checkpoint> checkpoint);

}  // namespace nibble
