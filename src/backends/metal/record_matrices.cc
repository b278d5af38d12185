// Dispatches that multiply by matrices: linears, blocks of gate and up, experts.
#include "backends/metal/step_recorder.h"

namespace nibble {

using namespace metal_fusion;

namespace {

constexpr int64_t kRowsOfThreadgroup = kRows * kRowSimdgroups;

int64_t bytes_of_one(const MetalMatrix& w) { return w.bytes / w.E; }

}  // namespace

StepRecorder::MatrixRoute StepRecorder::route_of(int64_t M) {
  if (takes_tiles(M)) return {"_tiles", kTile, kTile, kTileThreads};
  if (M > 1) return {"_block", kRowsOfThreadgroup, kTokenBlock, kRowSimdgroups * kLanes};
  return {"", kRowsOfThreadgroup, 1, kRowSimdgroups * kLanes};
}
StepRecorder::MatrixRoute StepRecorder::route_of_pairs(int64_t num_pairs, int64_t num_experts) {
  if (takes_expert_tiles(num_pairs, num_experts)) return {"_tiles", kTile, kTile, kTileThreads};
  return {"_pairs", kRowsOfThreadgroup, kTokenBlock, kRowSimdgroups * kLanes};
}

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
  const int64_t M = rows(x);
  const MatrixRoute route = route_of(M);  // not tiles: metal_fuse.cc
  const GateUpArguments a{.gate = gate.arguments,
                          .up = up.arguments,
                          .M = u32(M),
                          .K = u32(x.width),
                          .x_stride = stride(x),
                          .out_stride = stride(pair.swiglu.out),
                          .top_k = 1,
                          .has_gate_bias = bool{pair.gate.bias},
                          .has_up_bias = bool{pair.up.bias},
                          .norm_eps = pair.norm ? pair.norm->eps : 0};
  Kernel kernel{.name = kernel_name(fmt::format("gate_up{}", route.suffix), pair.gate.w)};
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
  add(std::move(d), {{x}, {pair.swiglu.out}}, {u32(divide_up(gate.N, route.rows)), 1, u32(divide_up(M, route.tokens))},
      route.threads);
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
  scratch_.used.push_back(device_.make_buffer(static_cast<size_t>(count) * sizeof(uint32_t)));
  note_used(scratch_.used.back().get(), count, bytes_of_one);
  return {scratch_.used.back().get(), 0};
}

void StepRecorder::note_used(const MetalBuffer* experts, int64_t count, int64_t bytes_of_one) {
  recorded_.used_experts.push_back({recorded_.dispatches.size(), bytes_of_one, experts, count});
}
int64_t StepRecorder::bytes_of_expert(const ExpertGateUp& part) const {
  return (part.part == 2 ? 0 : bytes_of_one(matrix(part.op.gate))) +
         (part.part == 1 ? 0 : bytes_of_one(matrix(part.op.up)));
}

void StepRecorder::record(const ExpertGateUp& part, const Dispatch& what) {
  const MoeGateUpOp& op = part.op;
  const MetalMatrix &gate = matrix(op.gate), &up = matrix(op.up);
  const int64_t M = rows(op.x), top_k = op.experts.width;
  const GateUpArguments a{.gate = gate.arguments,
                          .up = up.arguments,
                          .M = u32(M),
                          .K = u32(op.x.width),
                          .x_stride = stride(op.x),
                          .out_stride = stride(op.out),
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
  if (M > 1) return record_pairs(part, a, std::move(kernel), what);
  RecordedDispatch d = make(what, kernel, a);
  const int64_t one = bytes_of_expert(part);
  d.info.weight_bytes = one * top_k;
  d.buffers = {bind(op.x),
               bind_nothing(),
               bind(op.gate),
               bind(op.up),
               bind_vector(op.gate_bias),
               bind_vector(op.up_bias),
               bind(op.experts),
               bind_used(top_k, one),
               bind(op.out)};
  OpSlices slices{{op.x, op.experts}, {op.out}};
  if (part.part == 2) slices.reads.push_back(op.out);
  add(std::move(d), slices, {u32(divide_up(gate.N, kRowsOfThreadgroup)), u32(top_k)}, kRowSimdgroups * kLanes);
}

void StepRecorder::record(const MoeDownOp& op, const Dispatch& what) {
  const MetalMatrix& w = matrix(op.down);
  const int64_t top_k = op.experts.width;
  const MoeDownArguments a{.w = w.arguments, .K = u32(w.K), .x_stride = stride(op.x), .top_k = u32(top_k)};
  Kernel kernel{.name = kernel_name("moe_down", op.down)};
  kernel.constants[kAligned] = is_aligned(op.x) && w.K % 4 == 0;
  kernel.constants[kHasBias] = bool{op.bias};
  if (rows(op.x) > 1) return record_pairs(op, a, std::move(kernel), what);
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = bytes_of_one(w) * top_k;
  d.buffers = {bind(op.x),       bind(op.down),           bind_vector(op.bias),
               bind(op.experts), bind(op.expert_weights), bind_used(top_k, bytes_of_one(w)),
               bind(op.out)};
  add(std::move(d), op_slices(op), {u32(divide_up(w.N, kRowsOfThreadgroup))}, kRowSimdgroups * kLanes);
}

// ---- experts of several tokens ----

const StepRecorder::SortedPairs& StepRecorder::sort_pairs(const Slice& experts, int64_t num_experts, int64_t piece,
                                                          const Dispatch& what) {
  if (sorted_ && sorted_->experts == experts && sorted_->piece == piece) return *sorted_;
  const int64_t M = rows(experts), top_k = experts.width, num_pairs = M * top_k;
  // A piece of each expert may be short.
  const int64_t most_pieces = std::min(num_pairs, num_pairs / piece + std::min(num_pairs, num_experts));
  scratch_.used.push_back(device_.make_buffer(static_cast<size_t>(num_pairs) * sizeof(uint32_t)));
  const SortedPairs sorted{.experts = experts,
                           .piece = piece,
                           .most_pieces = most_pieces,
                           .pairs = bind_shared(kPairs, num_pairs * int64_t{sizeof(uint32_t)}),
                           .pieces = bind_shared(kPieces, most_pieces * int64_t{4 * sizeof(uint32_t)}),
                           .used = scratch_.used.back().get()};
  RecordedDispatch d = make(what, {"sort_pairs"},
                            SortPairsArguments{.M = u32(M),
                                               .top_k = u32(top_k),
                                               .num_experts = u32(num_experts),
                                               .experts_stride = stride(experts),
                                               .piece = u32(piece),
                                               .most_pieces = u32(most_pieces)});
  d.plan.matrices.clear();
  d.buffers = {bind(experts), {sorted.used, 0}, sorted.pairs, sorted.pieces};
  add(std::move(d), {{experts}, {shared_slice(kPairs)}}, {1}, kSortThreads);
  return sorted_.emplace(sorted);
}

void StepRecorder::record_pairs(const ExpertGateUp& part, const GateUpArguments& a, Kernel kernel,
                                const Dispatch& what) {
  const MoeGateUpOp& op = part.op;
  const MetalMatrix& gate = matrix(op.gate);
  const int64_t num_pairs = rows(op.x) * op.experts.width;
  const MatrixRoute route = route_of_pairs(num_pairs, gate.E);
  const SortedPairs& sorted = sort_pairs(op.experts, gate.E, route.tokens, what);
  kernel.name = kernel_name(fmt::format("gate_up{}", route.suffix), part.part == 2 ? op.up : op.gate);
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = bytes_of_expert(part) * std::min(num_pairs, gate.E);
  d.buffers = {bind(op.x),   bind(op.gate), bind(op.up), bind_vector(op.gate_bias), bind_vector(op.up_bias),
               sorted.pairs, sorted.pieces, bind(op.out)};
  note_used(sorted.used, num_pairs, bytes_of_expert(part));
  OpSlices slices{{op.x, shared_slice(kPairs)}, {op.out}};
  if (part.part == 2) slices.reads.push_back(op.out);
  add(std::move(d), slices, {u32(divide_up(gate.N, route.rows)), u32(sorted.most_pieces)}, route.threads);
}

void StepRecorder::record_pairs(const MoeDownOp& op, const MoeDownArguments& a, Kernel kernel, const Dispatch& what) {
  const MetalMatrix& w = matrix(op.down);
  const int64_t M = rows(op.x), top_k = op.experts.width;
  const MatrixRoute route = route_of_pairs(M * top_k, w.E);
  const SortedPairs& sorted = sort_pairs(op.experts, w.E, route.tokens, what);
  const MetalBinding products = bind_shared(kPairProducts, M * top_k * w.N * int64_t{sizeof(float)});
  kernel.name = kernel_name(fmt::format("moe_down{}", route.suffix), op.down);
  RecordedDispatch d = make(what, kernel, a);
  d.info.weight_bytes = bytes_of_one(w) * std::min(M * top_k, w.E);
  d.buffers = {bind(op.x), bind(op.down), bind_vector(op.bias), sorted.pairs, sorted.pieces, products};
  note_used(sorted.used, M * top_k, bytes_of_one(w));
  add(std::move(d), {{op.x, shared_slice(kPairs)}, {shared_slice(kPairProducts)}},
      {u32(divide_up(w.N, route.rows)), u32(sorted.most_pieces)}, route.threads);

  RecordedDispatch sum = make(what, {"sum_experts"},
                              SumExpertsArguments{.N = u32(w.N),
                                                  .top_k = u32(top_k),
                                                  .weights_stride = stride(op.expert_weights),
                                                  .out_stride = stride(op.out)});
  sum.plan.matrices.clear();
  sum.buffers = {products, bind(op.expert_weights), bind(op.out)};
  add_elementwise(std::move(sum), {{shared_slice(kPairProducts), op.expert_weights, op.out}, {op.out}}, w.N, M);
}

}  // namespace nibble
