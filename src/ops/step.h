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
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ops/choose_gemm.h"
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

// What turns the pairs of tokens at these positions: the cosine and sine of each one's angles, [pos, inv_freq] each. In double:
// angles may be large.
void fill_turns(const Rotation& rotation, std::span<const int32_t> pos, float* cosine, float* sine);

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

// Turns each head of x in place, from its value `first` on. Pair i is (x[i], x[i + rotary_dim/2]), the "half" style of
// the Hugging Face models, or (x[2i], x[2i + 1]).
struct RopeOp {
  Slice x;  // num_heads * head_dim
  int64_t num_heads, head_dim;
  int rotation;  // index into Step::rotations
  int64_t first = 0;
  bool interleaved = false;
};

// Puts k and v of each token into its sequence's cache at the token's position.
struct KvAppendOp {
  Slice k, v;  // v has no columns where values are read from the keys (LatentAttentionOp)
  int layer;
};

// For each head: softmax(scale * q · k) · v over the cached positions of the token's sequence, the last `window` ones up
// to its own; query head h reads key and value head h / (num_heads / num_kv_heads) (GQA, arXiv:2305.13245). A sink is
// one more logit of its head, not scaled, that takes its share of the softmax and has no value.
struct AttentionOp {
  Slice q;  // num_heads * head_dim
  int layer;
  int64_t num_heads, num_kv_heads, head_dim;
  float scale;
  Slice out;           // num_heads * head_dim
  int64_t window = 0;  // 0: all positions
  WeightId sinks;      // [num_heads], or none
};

// For each head h: out[h] = x[h] * w[h]ᵀ. Head h of x begins at h * (x.width / num_heads), of which the first K are read.
struct HeadLinearOp {
  Slice x;
  WeightId w;  // [num_heads, N, K]
  int64_t num_heads;
  Slice out;      // num_heads * N
  int64_t K = 0;  // of w, if it is to be known that the rest of a head is not read
};

// Attention over latents (MLA, arXiv:2405.04434, with its up-projections absorbed into q and out): a cached key is
// [latent_dim latent values, rope_dim rotated ones], shared by all heads, and its latent is the value, too. For each
// head: out = softmax(scale * (q_latent · latent + q_rope · rope)) · latent, q_rope being the last rope_dim of q's head.
struct LatentAttentionOp {
  Slice q_latent;  // num_heads * latent_dim
  Slice q;         // num_heads * (what is not read, rope_dim)
  int layer;
  int64_t num_heads, latent_dim, rope_dim;
  float scale;
  Slice out;  // num_heads * latent_dim
};

// out = silu(gate) * up, silu(x) = x / (1 + e^-x).
struct SwigluOp {
  Slice gate, up, out;
};

// A mixture of experts (MoE, arXiv:1701.06538) is three ops. The first chooses top_k of num_experts for each token:
//
//   scores   softmax or sigmoid of the logits
//   choice   the top_k largest of scores + correction_bias. Where experts form groups, num_groups of equal size, only
//            those of the top_groups best groups count; a group is worth the sum of its two best (DeepSeek-V3,
//            arXiv:2412.19437). Of equals the lower number is chosen.
//   weights  the scores of the chosen, without the bias; divided by their sum if `normalise`; times `scale`
enum class RouterScores : uint8_t { softmax, sigmoid };
struct RouteOp {
  Slice logits;              // [num_experts]
  WeightId correction_bias;  // [num_experts], or none
  RouterScores scores;
  int64_t num_groups = 1, top_groups = 1;
  bool normalise = true;
  float scale = 1.0f;
  Slice experts;         // [top_k] numbers, the best first; whole numbers as float32
  Slice expert_weights;  // [top_k]
};

// What stands between up and down: silu(gate) * up; or, clamped (gpt-oss), with gate at most `limit` and up within
// ±limit: gate * sigmoid(alpha * gate) * (up + 1).
enum class ExpertActivation : uint8_t { silu, clamped };

// For the j-th chosen expert e of a token: out[j] = activation(x * gate[e]ᵀ + its bias, x * up[e]ᵀ + its bias).
struct MoeGateUpOp {
  Slice x;                      // [K]
  WeightId gate, up;            // [E, N, K]
  WeightId gate_bias, up_bias;  // [E, N], or none
  Slice experts;                // [top_k]
  ExpertActivation activation = ExpertActivation::silu;
  float alpha = 0, limit = 0;  // of the clamped one
  Slice out;                   // [top_k * N]
};

// out += the sum over the chosen experts of expert_weights[j] * (x[j] * down[e]ᵀ + its bias).
struct MoeDownOp {
  Slice x;                        // [top_k * K]
  WeightId down;                  // [E, N, K]
  WeightId bias;                  // [E, N], or none
  Slice experts, expert_weights;  // [top_k]
  Slice out;                      // [N]
};

// out (one row for each token whose logits are wanted) = those tokens' rows of x.
struct SelectLogitsOp {
  Slice x, out;
};

using Op = std::variant<EmbedOp, RmsNormOp, LinearOp, RopeOp, KvAppendOp, AttentionOp, HeadLinearOp, LatentAttentionOp,
                        SwigluOp, RouteOp, MoeGateUpOp, MoeDownOp, SelectLogitsOp>;

// Whose logits a step computes.
enum class LogitsFor : uint8_t { last_token, all_tokens };

struct Step {
  int64_t M;
  LogitsFor logits_for;
  LinearRoute linear_route = LinearRoute::by_tokens;  // of all that multiplies by a matrix; the values are the same
  std::vector<StepBuffer> buffers;
  std::vector<Rotation> rotations;
  std::vector<Op> ops;
  Slice logits;  // the result, [logits rows, vocabulary]

  int64_t num_rows(Rows rows) const { return rows == Rows::tokens || logits_for == LogitsFor::all_tokens ? M : 1; }
  int64_t num_rows(const Slice& slice) const { return num_rows(buffers[static_cast<size_t>(slice.buffer)].rows); }
  int64_t buffer_bytes() const {  // of all buffers
    int64_t floats = 0;
    for (const StepBuffer& buffer : buffers) floats += num_rows(buffer.rows) * buffer.width;
    return floats * int64_t{sizeof(float)};
  }

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
  void head_linear(HeadLinearOp op) { ops.emplace_back(op); }
  void latent_attention(LatentAttentionOp op) { ops.emplace_back(op); }
  void swiglu(SwigluOp op) { ops.emplace_back(op); }
  void route(RouteOp op) { ops.emplace_back(op); }
  void moe_gate_up(MoeGateUpOp op) { ops.emplace_back(op); }
  void moe_down(MoeDownOp op) { ops.emplace_back(op); }
  void select_logits(SelectLogitsOp op) { ops.emplace_back(op); }
};

// What an op is called in plans and messages: "rms_norm".
std::string_view op_name(const Op& op);

// The slices that an op reads and writes.
struct OpSlices {
  std::vector<Slice> reads, writes;
};
OpSlices op_slices(const Op& op);

// Whether nothing from ops[first] on reads the slice before it is written anew, the step's logits among the readers.
bool is_dead(const Step& step, size_t first, const Slice& slice);

// The linears from ops[first] on that read exactly x and write apart from it and from each other.
std::vector<LinearOp> linears_of(const Step& step, size_t first, const Slice& x);

// Bytes of the matrices that an op of a step of M tokens multiplies by, `size` giving each matrix's. Of experts only the
// chosen count: `num_chosen`, or as if no two tokens chose the same one (exact for M = 1). An embedding's rows do not.
struct MatrixSize {
  int64_t E, bytes;
};
int64_t weight_bytes_read(const Op& op, int64_t M, const std::function<MatrixSize(WeightId)>& size,
                          std::optional<int64_t> num_chosen = {});

}  // namespace nibble
