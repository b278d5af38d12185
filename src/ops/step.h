// A step: what a model does for M tokens at once, written down as a short list of ops on named buffers.
//
// A model's forward does not compute, it calls the verbs below, which append to the list. A backend compiles the list
// once for a fixed M (it may fuse ops, cut them into phases, make a graph) and replays it for every step; token ids,
// positions and sequences are read at run time. The reference backend executes op by op and is the specification.
//
// Buffers are float32, row-major [rows, width]. An op names its operands as slices: some columns of all rows of a
// buffer. Linears follow y = x * wᵀ with w [N, K].
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "weights/weight_table.h"

namespace nibble {

// How many rows a buffer has: one for each token of the step, or one for each token whose logits are wanted.
enum class Rows : uint8_t { tokens, logits };

struct StepBuffer {
  std::string name;
  int64_t width;
  Rows rows;
};

// Columns [first, first + width) of every row of a buffer.
struct Slice {
  int buffer = -1;
  int64_t first = 0, width = 0;

  Slice columns(int64_t offset, int64_t count) const { return {buffer, first + offset, count}; }
  bool overlaps(const Slice& other) const {
    return buffer == other.buffer && first < other.first + other.width && other.first < first + width;
  }
  bool operator==(const Slice&) const = default;
};

// Rotary position embedding (RoPE, arXiv:2104.09864): pair i of a head turns by pos * inv_freq[i].
struct Rotation {
  std::vector<float> inv_freq;  // [rotary_dim / 2]; what is beyond rotary_dim in a head stays as it is
  float scale = 1.0f;           // multiplies cosine and sine (YaRN's attention factor)
};

// out = the token's row of w.
struct EmbedOp {
  WeightId w;
  Slice out;
};

// In each of `num_heads` equal pieces of a row: out = x / sqrt(mean(x²) + eps) * weight (arXiv:1910.07467).
struct RmsNormOp {
  Slice x;
  WeightId weight;  // [width / num_heads]
  Slice out;        // may be x
  float eps;
  int64_t num_heads = 1;
};

// out = x * wᵀ + bias, or out += that; out does not overlap x.
struct LinearOp {
  Slice x;
  WeightId w;     // [N, K]
  WeightId bias;  // [N], or none
  Slice out;
  bool accumulate = false;
};

// Turns each head of x in place; pair i is (x[i], x[i + rotary_dim/2]), the "half" style of the Hugging Face models.
struct RopeOp {
  Slice x;  // num_heads * head_dim
  int64_t num_heads, head_dim;
  int rotation;  // index into Step::rotations
};

// Puts k and v of each token into its sequence's cache at the token's position.
struct KvAppendOp {
  Slice k, v;
  int layer;
};

// For each head: softmax(scale * q · k) · v over the cached positions 0 … pos of the token's sequence; query head h
// reads key and value head h / (num_heads / num_kv_heads) (GQA, arXiv:2305.13245).
struct AttentionOp {
  Slice q;  // num_heads * head_dim
  int layer;
  int64_t num_heads, num_kv_heads, head_dim;
  float scale;
  Slice out;  // num_heads * head_dim
};

// out = silu(gate) * up, silu(x) = x / (1 + e^-x).
struct SwigluOp {
  Slice gate, up, out;
};

// out (one row for each token whose logits are wanted) = those tokens' rows of x.
struct SelectLogitsOp {
  Slice x, out;
};

using Op = std::variant<EmbedOp, RmsNormOp, LinearOp, RopeOp, KvAppendOp, AttentionOp, SwigluOp, SelectLogitsOp>;

// Whose logits a step computes.
enum class LogitsFor : uint8_t { last_token, all_tokens };

struct Step {
  int64_t M;
  LogitsFor logits_for;
  std::vector<StepBuffer> buffers;
  std::vector<Rotation> rotations;
  std::vector<Op> ops;
  Slice logits;  // the result, [logits rows, vocabulary]

  int64_t num_rows(Rows rows) const { return rows == Rows::tokens || logits_for == LogitsFor::all_tokens ? M : 1; }

  Slice buffer(std::string name, int64_t width, Rows rows = Rows::tokens) {
    buffers.push_back({std::move(name), width, rows});
    return {static_cast<int>(buffers.size()) - 1, 0, width};
  }
  int rotation(Rotation rotation) {
    rotations.push_back(std::move(rotation));
    return static_cast<int>(rotations.size()) - 1;
  }

  void embed(EmbedOp op) { ops.emplace_back(op); }
  void rms_norm(RmsNormOp op) { ops.emplace_back(op); }
  void linear(LinearOp op) { ops.emplace_back(op); }
  void rope(RopeOp op) { ops.emplace_back(op); }
  void kv_append(KvAppendOp op) { ops.emplace_back(op); }
  void attention(AttentionOp op) { ops.emplace_back(op); }
  void swiglu(SwigluOp op) { ops.emplace_back(op); }
  void select_logits(SelectLogitsOp op) { ops.emplace_back(op); }
};

// What an op is called in plans and messages: "rms_norm".
std::string_view op_name(const Op& op);

// The slices that an op reads and writes.
struct OpSlices {
  std::vector<Slice> reads, writes;
};
OpSlices op_slices(const Op& op);

}  // namespace nibble
