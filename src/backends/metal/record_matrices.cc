// Dispatches that multiply by matrices: linears, blocks of gate and up, experts.
#include "backends/metal/step_recorder.h"

namespace nibble {

using namespace metal_fusion;

namespace {

constexpr int64_t kRowsOfThreadgroup = kRows * kRowSimdgroups;

// How M tokens go through a matrix: the end of a kernel's stem, and what its threadgroups are.
struct MatrixRoute {
  std::string_view suffix;
  int64_t rows, tokens;  // of a threadgroup
  uint32_t threads;
};
MatrixRoute route_of(int64_t M) {
  if (takes_tiles(M)) return {"_tiles", kTile, kTile, kTileThreads};
  if (M > 1) return {"_block", kRowsOfThreadgroup, kTokenBlock, kRowSimdgroups * kLanes};
  return {"", kRowsOfThreadgroup, 1, kRowSimdgroups * kLanes};
}
int64_t bytes_of_one(const MetalMatrix& w) { return w.bytes / w.E; }

}  // namespace

void StepRecorder::record(const Linears& group, const Dispatch& what) {
  const Slice& x = group.norm ? group.norm->x : group.linears[0].x;
  const LinearOp& first = group.linears[0];
  const int64_t M = rows(x);
  const MatrixRoute route = route_of(M);
  LinearArguments a{.M = u32(M), .K = u32(x.width), .x_stride = stride(x)};
  if (group.norm) {
    a.normed_stride = stride(group.norm->out);
    a.norm_eps = group.norm->eps;
  }
  OpSlices slices{{x}, {}};
  if (group.stores_norm) slices.writes.push_back(group.norm->out);
  int64_t threadgroups = 0, bytes = 0;
  std::vector<MetalBinding> matrices, biases, outs;
  for (size_t i = 0; i < kMostParts; i++) {
    const bool is_there = i < group.linears.size();
    a.first_threadgroup[i] = is_there ? u32(threadgroups) : ~0u;
    const LinearOp& op = group.linears[is_there ? i : 0];
    matrices.push_back(is_there ? bind(op.w) : bind_nothing());
    biases.push_back(bind_vector(op.bias));
    outs.push_back(bind(op.out));
    if (!is_there) continue;
    a.w[i] = matrix(op.w).arguments;
    a.out_stride[i] = stride(op.out);
    threadgroups += divide_up(matrix(op.w).N, route.rows);
    bytes += matrix(op.w).bytes;
    slices.writes.push_back(op.out);
    if (op.accumulate) slices.reads.push_back(op.out);
  }
  Kernel kernel{.name = kernel_name(fmt::format("linear{}", route.suffix), first.w)};
  kernel.constants[kHasNorm] = group.norm.has_value();
  kernel.constants[kStoresNorm] = group.stores_norm;
  kernel.constants[kAligned] = is_aligned(x);
  kernel.constants[kHasBias] = bool{first.bias};
  kernel.constants[kAccumulates] = first.accumulate;
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = bytes;
  d.buffers = {bind(x), bind_vector(group.norm ? group.norm->weight : WeightId{}),
               group.stores_norm ? bind(group.norm->out) : bind_nothing()};
  for (const auto* list : {&matrices, &biases, &outs}) d.buffers.insert(d.buffers.end(), list->begin(), list->end());
  add(std::move(d), slices, {u32(threadgroups), u32(divide_up(M, route.tokens))}, route.threads);
}

void StepRecorder::record(const DenseGateUp& pair, const Dispatch& what) {
  const Slice& x = pair.norm ? pair.norm->x : pair.gate.x;
  const MetalMatrix &gate = matrix(pair.gate.w), &up = matrix(pair.up.w);
  const GateUpArguments a{.gate = gate.arguments,
                          .up = up.arguments,
                          .K = u32(x.width),
                          .x_stride = stride(x),
                          .out_stride = stride(pair.swiglu.out),
                          .top_k = 1,
                          .has_gate_bias = bool{pair.gate.bias},
                          .has_up_bias = bool{pair.up.bias},
                          .norm_eps = pair.norm ? pair.norm->eps : 0};
  Kernel kernel{.name = kernel_name("gate_up", pair.gate.w)};
  kernel.constants[kHasNorm] = pair.norm.has_value();
  kernel.constants[kAligned] = is_aligned(x);
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = gate.bytes + up.bytes;
  d.buffers = {bind(x),
               bind_vector(pair.norm ? pair.norm->weight : WeightId{}),
               bind(pair.gate.w),
               bind(pair.up.w),
               bind_vector(pair.gate.bias),
               bind_vector(pair.up.bias),
               bind_nothing(),
               bind_nothing(),
               bind(pair.swiglu.out)};
  add(std::move(d), {{x}, {pair.swiglu.out}}, {u32(divide_up(gate.N, kRowsOfThreadgroup)), 1, u32(rows(x))},
      kRowSimdgroups * kLanes);
}

void StepRecorder::record(const HeadLinearOp& op, const Dispatch& what) {
  const MetalMatrix& w = matrix(op.w);
  const int64_t M = rows(op.x), head_dim = op.x.width / op.num_heads;
  const MatrixRoute route = route_of(M);
  const HeadLinearArguments a{.w = w.arguments,
                              .M = u32(M),
                              .K = u32(w.K),
                              .x_stride = stride(op.x),
                              .x_head_stride = u32(head_dim),
                              .out_stride = stride(op.out)};
  Kernel kernel{.name = kernel_name(fmt::format("head_linear{}", route.suffix), op.w)};
  kernel.constants[kAligned] = is_aligned(op.x) && head_dim % 4 == 0;
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = w.bytes;
  d.buffers = {bind(op.x), bind(op.w), bind(op.out)};
  add(std::move(d), {{op.x}, {op.out}},
      {u32(divide_up(w.N, route.rows)), u32(divide_up(M, route.tokens)), u32(op.num_heads)}, route.threads);
}

// ---- experts ----

MetalBinding StepRecorder::bind_used(int64_t count, int64_t bytes_of_one) {
  scratch_.used.push_back(device_.make_buffer(static_cast<size_t>(count) * sizeof(float)));
  recorded_.used_experts.push_back({recorded_.dispatches.size(), bytes_of_one, scratch_.used.back().get(), count});
  return {scratch_.used.back().get(), 0};
}
void StepRecorder::record(const ExpertGateUp& part, const Dispatch& what) {
  const MoeGateUpOp& op = part.op;
  const MetalMatrix &gate = matrix(op.gate), &up = matrix(op.up);
  const int64_t M = rows(op.x), top_k = op.experts.width;
  const GateUpArguments a{.gate = gate.arguments,
                          .up = up.arguments,
                          .K = u32(op.x.width),
                          .x_stride = stride(op.x),
                          .out_stride = stride(op.out),
                          .experts_stride = stride(op.experts),
                          .top_k = u32(top_k),
                          .has_gate_bias = bool{op.gate_bias},
                          .has_up_bias = bool{op.up_bias},
                          .alpha = op.alpha,
                          .limit = op.limit};
  Kernel kernel{.name = kernel_name("gate_up", part.part == 2 ? op.up : op.gate)};
  kernel.constants[kAligned] = is_aligned(op.x);
  kernel.constants[kHasExperts] = true;
  kernel.constants[kClamped] = op.activation == ExpertActivation::clamped;
  kernel.constants[kOnlyGate] = part.part == 1;
  kernel.constants[kOnlyUp] = part.part == 2;
  RecordedDispatch d = make(what, kernel, a);
  const int64_t one = (part.part == 2 ? 0 : bytes_of_one(gate)) + (part.part == 1 ? 0 : bytes_of_one(up));
  d.info.weight_bytes = one * std::min(M * top_k, gate.E);
  d.buffers = {bind(op.x),
               bind_nothing(),
               bind(op.gate),
               bind(op.up),
               bind_vector(op.gate_bias),
               bind_vector(op.up_bias),
               bind(op.experts),
               bind_used(M * top_k, one),
               bind(op.out)};
  OpSlices slices{{op.x, op.experts}, {op.out}};
  if (part.part == 2) slices.reads.push_back(op.out);
  add(std::move(d), slices, {u32(divide_up(gate.N, kRowsOfThreadgroup)), u32(top_k), u32(M)}, kRowSimdgroups * kLanes);
}

void StepRecorder::record(const MoeDownOp& op, const Dispatch& what) {
  const MetalMatrix& w = matrix(op.down);
  const int64_t M = rows(op.x), top_k = op.experts.width;
  const MoeDownArguments a{.w = w.arguments,
                           .K = u32(w.K),
                           .x_stride = stride(op.x),
                           .out_stride = stride(op.out),
                           .experts_stride = stride(op.experts),
                           .weights_stride = stride(op.expert_weights),
                           .top_k = u32(top_k)};
  Kernel kernel{.name = kernel_name("moe_down", op.down)};
  kernel.constants[kAligned] = is_aligned(op.x) && w.K % 4 == 0;
  kernel.constants[kHasBias] = bool{op.bias};
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = bytes_of_one(w) * std::min(M * top_k, w.E);
  d.buffers = {bind(op.x),       bind(op.down),           bind_vector(op.bias),
               bind(op.experts), bind(op.expert_weights), bind_used(M * top_k, bytes_of_one(w)),
               bind(op.out)};
  add(std::move(d), op_slices(op), {u32(divide_up(w.N, kRowsOfThreadgroup)), u32(M)}, kRowSimdgroups * kLanes);
}

}  // namespace nibble
