#include "ops/step.h"

#include <algorithm>
#include <cmath>

namespace nibble {

namespace {

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

}  // namespace

void fill_turns(const Rotation& rotation, std::span<const int32_t> pos, float* cosine, float* sine) {
  for (const int32_t p : pos)
    for (const float inv_freq : rotation.inv_freq) {
      const double angle = static_cast<double>(p) * inv_freq;
      *cosine++ = static_cast<float>(std::cos(angle) * rotation.scale);
      *sine++ = static_cast<float>(std::sin(angle) * rotation.scale);
    }
}

std::string_view op_name(const Op& op) {
  return std::visit(
      Overloaded{[](const EmbedOp&) { return "embed"; }, [](const RmsNormOp&) { return "rms_norm"; },
                 [](const LinearOp&) { return "linear"; }, [](const RopeOp&) { return "rope"; },
                 [](const KvAppendOp&) { return "kv_append"; }, [](const AttentionOp&) { return "attention"; },
                 [](const HeadLinearOp&) { return "head_linear"; },
                 [](const LatentAttentionOp&) { return "latent_attention"; }, [](const SwigluOp&) { return "swiglu"; },
                 [](const RouteOp&) { return "route"; }, [](const MoeGateUpOp&) { return "moe_gate_up"; },
                 [](const MoeDownOp&) { return "moe_down"; }, [](const SelectLogitsOp&) { return "select_logits"; }},
      op);
}

OpSlices op_slices(const Op& op) {
  return std::visit(
      Overloaded{
          [](const EmbedOp& o) { return OpSlices{{}, {o.out}}; },
          [](const RmsNormOp& o) { return OpSlices{{o.x}, {o.out}}; },
          [](const LinearOp& o) { return o.accumulate ? OpSlices{{o.x, o.out}, {o.out}} : OpSlices{{o.x}, {o.out}}; },
          [](const RopeOp& o) { return OpSlices{{o.x}, {o.x}}; },
          [](const KvAppendOp& o) { return o.v.width > 0 ? OpSlices{{o.k, o.v}, {}} : OpSlices{{o.k}, {}}; },
          [](const AttentionOp& o) { return OpSlices{{o.q}, {o.out}}; },
          [](const HeadLinearOp& o) { return OpSlices{{o.x}, {o.out}}; },
          [](const LatentAttentionOp& o) { return OpSlices{{o.q_latent, o.q}, {o.out}}; },
          [](const SwigluOp& o) { return OpSlices{{o.gate, o.up}, {o.out}}; },
          [](const RouteOp& o) { return OpSlices{{o.logits}, {o.experts, o.expert_weights}}; },
          [](const MoeGateUpOp& o) { return OpSlices{{o.x, o.experts}, {o.out}}; },
          [](const MoeDownOp& o) { return OpSlices{{o.x, o.experts, o.expert_weights, o.out}, {o.out}}; },
          [](const SelectLogitsOp& o) { return OpSlices{{o.x}, {o.out}}; }},
      op);
}

bool is_dead(const Step& step, size_t first, const Slice& slice) {
  if (slice.width <= 0) return true;
  if (slice.overlaps(step.logits)) return false;
  for (size_t i = first; i < step.ops.size(); i++) {
    const OpSlices slices = op_slices(step.ops[i]);
    if (std::ranges::any_of(slices.reads, [&](const Slice& s) { return s.overlaps(slice); })) return false;
    const auto write = std::ranges::find_if(slices.writes, [&](const Slice& s) { return s.overlaps(slice); });
    if (write == slices.writes.end()) continue;
    const int64_t end = slice.first + slice.width, write_end = write->first + write->width;
    return is_dead(step, i + 1, {slice.buffer, slice.first, write->first - slice.first}) &&  // the columns before it
           is_dead(step, i + 1, {slice.buffer, write_end, end - write_end});                 // and behind
  }
  return true;
}

std::vector<LinearOp> linears_of(const Step& step, size_t first, const Slice& x) {
  std::vector<LinearOp> linears;
  for (size_t i = first; i < step.ops.size(); i++) {
    const auto* linear = std::get_if<LinearOp>(&step.ops[i]);
    if (linear == nullptr || linear->x != x || linear->out.overlaps(x)) break;
    if (std::ranges::any_of(linears, [&](const LinearOp& l) { return l.out.overlaps(linear->out); })) break;
    linears.push_back(*linear);
  }
  return linears;
}

namespace {

// A matrix that an op multiplies by, and how many of its experts are read, if there are so many.
struct MatrixRead {
  WeightId w;
  int64_t num_experts;
};

std::vector<MatrixRead> matrices_read(const Op& op, int64_t M, std::optional<int64_t> num_chosen) {
  using Reads = std::vector<MatrixRead>;
  const auto chosen = [&](const Slice& experts) { return num_chosen.value_or(M * experts.width); };
  return std::visit(
      Overloaded{[](const LinearOp& o) { return Reads{{o.w, 1}}; },
                 [](const HeadLinearOp& o) { return Reads{{o.w, o.num_heads}}; },
                 [&](const MoeGateUpOp& o) { return Reads{{o.gate, chosen(o.experts)}, {o.up, chosen(o.experts)}}; },
                 [&](const MoeDownOp& o) { return Reads{{o.down, chosen(o.experts)}}; },
                 [](const auto&) { return Reads{}; }},
      op);
}

}  // namespace

int64_t weight_bytes_read(const Op& op, int64_t M, const std::function<MatrixSize(WeightId)>& size,
                          std::optional<int64_t> num_chosen) {
  int64_t bytes = 0;
  for (const MatrixRead& read : matrices_read(op, M, num_chosen)) {
    const MatrixSize matrix = size(read.w);
    bytes += matrix.bytes / matrix.E * std::min(read.num_experts, matrix.E);
  }
  return bytes;
}

}  // namespace nibble
