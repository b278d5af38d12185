// Where a model's weights come from: a checkpoint, or a generator of random ones. A model asks for matrices and vectors
// by name, shape and quirks; the source answers with what they mean.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "weights/weight.h"

namespace nibble {

// The names of one tensor in the two worlds, without the ".weight" at the end ("model.layers.3.mlp.up_proj",
// "blk.3.ffn_up"): the dialect decides how codes and scales are called.
struct TensorName {
  std::string hf, gguf;
};

// One matrix for each of E heads. Where the file has the matrix `alone`, [E, N, K], that is it: GGUF files, and MLX's
// newer ones. Else the file's matrix has the heads one below the other, with other things between: a head has head_rows
// rows, of which those from first_row on are wanted, or their transposition: Hugging Face's files, and old GGUF ones.
// No head_rows: this is another matrix.
struct HeadSlice {
  TensorName alone;
  int64_t head_rows = 0, first_row = 0;
  bool transposed = false;
};

struct MatrixRequest {
  TensorName name;
  int64_t E = 1, N = 0, K = 0;
  // One matrix for each of E experts, E = 1 included. The * in name.hf stands for the expert's number
  // ("model.layers.3.mlp.experts.*.gate_proj"); a file may hold them one by one, stacked, or gate and up interleaved.
  bool is_experts = false;
  // GGUF files of the llama architecture hold the rows of q and k so that rotation pairs neighbours: within each of
  // this many heads, row 2i + h of the file is row h * head_dim/2 + i of the model. 0: rows are as they should be.
  int gguf_permuted_heads = 0;
  HeadSlice heads = {};
};

struct VectorRequest {
  TensorName name;  // with its ending: "model.norm.weight", "output_norm.weight", "….q_proj.bias", "blk.0.attn_q.bias"
  int64_t size = 0;
  int gguf_permuted_heads = 0;  // as above, for the biases of q and k
  // The biases of E experts, [E, size] values; the * in name.hf as above ("….experts.*.gate_proj.bias").
  int64_t E = 1;
  bool is_experts = false;
};

// What is known of a matrix before its bytes are read.
struct MatrixInfo {
  FormatId format;
  int64_t E, N, K;
  int64_t bytes;           // of codes and scales
  bool is_copied = false;  // into our order: while it is read, the file's bytes are in memory, too
  std::string source;      // what the file has, for the plan: "U8 + F8_E4M3 scales (ModelOpt NVFP4)", "Q4_1"
};

// A tensor that is known and of no use here.
struct UnusedTensor {
  std::string name;
  std::string_view reason;  // a constant, for the plan: "activation scale; activations are not 4 bits wide here"
  bool operator==(const UnusedTensor&) const = default;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Whether it has that tensor.
  virtual bool has(const TensorName& matrix) const = 0;
  virtual bool has_vector(const TensorName& vector) const = 0;

  // Throw InputError if the tensor is missing, has another shape, or is in a format that is not read.
  virtual void check_vector(const VectorRequest& request) = 0;
  virtual MatrixInfo describe(const MatrixRequest& request) = 0;

  // The weight, checked by check_weight and check_floats; it may point into a file. Several threads may read at once. Throw as
  // above, and RunError if the system cannot read.
  CanonicalWeight read(const MatrixRequest& request) {
    CanonicalWeight weight = read_without_floats_check(request);
    check_floats(weight);
    return weight;
  }
  virtual CanonicalWeight read_without_floats_check(const MatrixRequest& request) = 0;
  virtual std::vector<float> read_vector(const VectorRequest& request) = 0;

  // The names of the file's tensors that the weight is made of, for the plan; the weight has been described or checked.
  virtual std::vector<std::string> tensors_of(const MatrixRequest& request) = 0;
  virtual std::vector<std::string> tensors_of(const VectorRequest& request) = 0;

  // Tensors that nobody asked for and that are not known to be useless here: if there are any, the model is not the one
  // that the file holds. And those that are known and not used (activation scales, prediction layers), with the reason.
  virtual std::vector<std::string> unknown_tensors() const = 0;
  virtual std::vector<UnusedTensor> unused_tensors() const = 0;

  // What the configuration says that is of no use here, such as the format of a KV cache: "{file}: {key} {value}".
  virtual std::vector<std::string> unused_settings() const { return {}; }
};

}  // namespace nibble
