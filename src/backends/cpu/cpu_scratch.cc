#include "backends/cpu/cpu_scratch.h"

#include <algorithm>

#include "backends/cpu/cpu_step.h"
#include "backends/cpu/cpu_step_memory.h"
#include "backends/cpu/row_ops.h"

namespace nibble {

namespace {

struct Planner {
  const Step& step;
  const std::function<WeightShape(WeightId)>& shape_of;
  const int64_t max_len;
  CpuScratchPlan plan = {};

  template <class Shape>
  static void add(std::vector<Shape>& shapes, const Shape& shape) {
    if (std::ranges::find(shapes, shape) == shapes.end()) shapes.push_back(shape);
  }

  void operator()(const LinearGroup& group) {
    const int64_t M = step.num_rows(group.x);
    int64_t& bytes = M <= kRedundantTokens ? plan.own_activations : plan.common_activations;
    bytes = std::max(bytes, group_activations_bytes(group, M));
  }
  void operator()(const HeadLinearOp& op) {
    plan.own_activations = std::max(plan.own_activations, activations_bytes(step.num_rows(op.x), shape_of(op.w).K));
  }
  void operator()(const AttentionGroup& group) {
    add(plan.attentions, attention_shape(group.attention, step.M, max_len));
  }
  void operator()(const LatentAttentionOp& op) { add(plan.attentions, attention_shape(op, step.M, max_len)); }
  void operator()(const ExpertGroup& group) {
    add(plan.experts, moe_shape(group.gate_up, step.M, shape_of(group.gate_up.gate)));
  }
  void operator()(const MoeDownOp& op) { add(plan.experts, moe_shape(op, step.M, shape_of(op.down))); }
  void operator()(const RowGroup&) {}
};

}  // namespace

CpuScratchPlan plan_cpu_scratch(const Step& step, std::span<const SideBySide> groups,
                                const std::function<WeightShape(WeightId)>& shape_of, int64_t max_len) {
  Planner planner{step, shape_of, max_len};
  for (const SideBySide& phase : groups)
    for (const OpGroup& group : phase) std::visit(planner, group);
  return planner.plan;
}

int64_t normed_bytes(const LinearGroup& group, int64_t M) {
  return group.norm ? (M * group.x.width * int64_t{sizeof(float)} + kLineBytes - 1) / kLineBytes * kLineBytes : 0;
}

int64_t group_activations_bytes(const LinearGroup& group, int64_t M) {
  return normed_bytes(group, M) + activations_bytes(M, group.x.width);
}

int64_t cpu_scratch_bytes(const Step& step, std::span<const WeightShape> weights, int64_t max_len, int num_workers) {
  const auto shape_of = [&](WeightId id) { return weights[static_cast<size_t>(id.index)]; };
  const CpuScratchPlan plan = plan_cpu_scratch(step, fuse(step), shape_of, max_len);
  int64_t bytes = step_memory_bytes(step) + num_workers * static_cast<int64_t>(largest_route_bytes(step)) +
                  plan.common_activations + num_workers * plan.own_activations;
  for (const AttentionShape& shape : plan.attentions) bytes += attention_bytes(shape, num_workers);
  for (const MoeShape& shape : plan.experts) bytes += moe_bytes(shape, num_workers);
  return bytes;
}

}  // namespace nibble
