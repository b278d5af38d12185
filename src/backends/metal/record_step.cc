#include "backends/metal/record_step.h"

#include "backends/metal/step_recorder.h"
#include "base/error.h"

namespace nibble {

using namespace metal_fusion;

namespace {

// As steps that decode have them.
bool has_all_logits(const Step& step) {
  return step.num_rows(step.buffers[static_cast<size_t>(step.logits.buffer)].rows) == step.M;
}

std::unique_ptr<MetalBuffer> make_floats(MetalDevice& device, int64_t count) {
  return device.make_buffer(static_cast<size_t>(count) * sizeof(float));
}

}  // namespace

RecordedStep StepRecorder::record_all() {
  const auto format = [this](WeightId id) { return matrix(id).format; };
  for (const Dispatch& dispatch : fuse(step_, format))
    std::visit([&](const auto& d) { record(d, dispatch); }, dispatch);
  return std::move(recorded_);
}

void StepRecorder::add(RecordedDispatch d, const OpSlices& slices, MetalSize threadgroups, uint32_t threads) {
  d.threadgroups = threadgroups;
  d.threads = threads;
  const auto overlap = [](const std::vector<Slice>& a, const std::vector<Slice>& b) {
    return std::ranges::any_of(
        a, [&](const Slice& s) { return std::ranges::any_of(b, [&](const Slice& t) { return s.overlaps(t); }); });
  };
  d.needs_barrier = overlap(running_.writes, slices.reads) || overlap(running_.writes, slices.writes) ||
                    overlap(running_.reads, slices.writes);
  d.plan.weight_bytes = d.info.weight_bytes;
  if (d.needs_barrier) running_ = {};
  running_.reads.insert(running_.reads.end(), slices.reads.begin(), slices.reads.end());
  running_.writes.insert(running_.writes.end(), slices.writes.begin(), slices.writes.end());
  if (sorted_ && overlap(slices.writes, {sorted_->experts})) sorted_.reset();
  recorded_.dispatches.push_back(std::move(d));
}

MetalBinding StepRecorder::bind_shared(SharedBuffer which, int64_t bytes) {
  auto& list = scratch_.shared[which];
  if (list.empty() || static_cast<int64_t>(list.back()->size()) < bytes)
    list.push_back(device_.make_buffer(static_cast<size_t>(bytes)));
  return {list.back().get(), 0};
}

void StepRecorder::record(const EmbedOp& op, const Dispatch& what) {
  const MetalMatrix& w = matrix(op.w);
  RecordedDispatch d = make(what, {kernel_name("embed", op.w)}, EmbedArguments{w.arguments, u32(w.K), stride(op.out)});
  d.buffers = {bind(op.w), {scratch_.tokens.get(), 0}, bind(op.out)};
  add_elementwise(std::move(d), op_slices(op), w.arguments.num_chunks, rows(op.out));
}
void StepRecorder::record(const RmsNormOp& op, const Dispatch& what) {
  const RmsNormArguments a{
      .width = u32(op.x.width / op.num_heads), .x_stride = stride(op.x), .out_stride = stride(op.out), .eps = op.eps};
  RecordedDispatch d = make(what, {"rms_norm"}, a);
  d.buffers = {bind(op.x), bind_vector(op.weight), bind(op.out)};
  add(std::move(d), op_slices(op), {u32(op.num_heads), u32(rows(op.x))}, kLanes);
}
void StepRecorder::record(const RopeOp& op, const Dispatch& what) {
  const auto pairs = static_cast<int64_t>(step_.rotations[static_cast<size_t>(op.rotation)].inv_freq.size());
  const RopeArguments a{.stride = stride(op.x),
                        .head_dim = u32(op.head_dim),
                        .first = u32(op.first),
                        .num_pairs = u32(pairs),
                        .M = u32(step_.M)};
  Kernel kernel{.name = "rope"};
  kernel.constants[kIsInterleaved] = op.interleaved;
  RecordedDispatch d = make(what, kernel, a);
  d.buffers = {bind(op.x), bind_turns(op.rotation)};
  add_elementwise(std::move(d), op_slices(op), pairs, op.num_heads, step_.M);
}
void StepRecorder::record(const SwigluOp& op, const Dispatch& what) {
  RecordedDispatch d =
      make(what, {"swiglu"}, SwigluArguments{u32(op.out.width), stride(op.gate), stride(op.up), stride(op.out)});
  d.buffers = {bind(op.gate), bind(op.up), bind(op.out)};
  add_elementwise(std::move(d), op_slices(op), op.out.width, rows(op.out));
}
void StepRecorder::record(const SelectLogitsOp& op, const Dispatch& what) {
  const CopyRowsArguments a{.width = u32(op.out.width),
                            .x_stride = stride(op.x),
                            .out_stride = stride(op.out),
                            .first_row = u32(rows(op.x) - rows(op.out))};
  RecordedDispatch d = make(what, {"copy_rows"}, a);
  d.buffers = {bind(op.x), bind(op.out)};
  add_elementwise(std::move(d), op_slices(op), op.out.width, rows(op.out));
}

void StepRecorder::record(const RouteOp& op, const Dispatch& what) {
  if (op.logits.width > kMostExperts)
    throw_input_error("backend metal: {} experts; it has kernels for up to {}, --backend cpu for any number",
                      op.logits.width, int64_t{kMostExperts});
  const RouteArguments a{.num_experts = u32(op.logits.width),
                         .top_k = u32(op.experts.width),
                         .num_groups = u32(op.num_groups),
                         .top_groups = u32(op.top_groups),
                         .logits_stride = stride(op.logits),
                         .experts_stride = stride(op.experts),
                         .weights_stride = stride(op.expert_weights),
                         .normalise = op.normalise,
                         .has_bias = bool{op.correction_bias},
                         .scale = op.scale};
  Kernel kernel{.name = "route"};
  kernel.constants[kIsSigmoid] = op.scores == RouterScores::sigmoid;
  RecordedDispatch d = make(what, kernel, a);
  d.buffers = {bind(op.logits), bind_vector(op.correction_bias), bind(op.experts), bind(op.expert_weights)};
  add(std::move(d), op_slices(op), {u32(rows(op.logits))}, kLanes);
}

MetalScratch::MetalScratch(const Step& step, MetalDevice& device)
    : num_ahead(has_all_logits(step) && step.M <= kMostAheadRows ? kMostAhead : 1),
      tokens(make_floats(device, step.M)),
      pos(make_floats(device, num_ahead * step.M)),
      sequence(make_floats(device, step.M)),
      nothing(make_floats(device, 1)) {
  for (const StepBuffer& buffer : step.buffers) {
    strides.push_back((buffer.width + 3) / 4 * 4);  // rows begin at a multiple of 16 bytes, as the kernels read them
    buffers.push_back(make_floats(device, step.num_rows(buffer.rows) * strides.back()));
  }
  for (const Rotation& rotation : step.rotations)
    turns.push_back(make_floats(device, num_ahead * 2 * step.M * static_cast<int64_t>(rotation.inv_freq.size())));
}

int64_t MetalScratch::bytes() const {
  size_t bytes = tokens->size() + pos->size() + sequence->size() + nothing->size();
  for (const auto* list : {&buffers, &turns, &used})
    for (const auto& buffer : *list) bytes += buffer->size();
  for (const auto& list : shared)
    for (const auto& buffer : list) bytes += buffer->size();
  return static_cast<int64_t>(bytes);
}

RecordedStep record_step(const Step& step, std::span<const PackedWeight* const> weights,
                         const KvCacheShape& cache_shape, MetalDevice& device, MetalKernels& kernels,
                         MetalScratch& scratch) {
  if (step.linear_route == LinearRoute::always_tiles)
    throw_input_error("backend metal: it has no route with tiles for every number of tokens; the cpu backend has");
  return StepRecorder(step, weights, cache_shape, device, kernels, scratch).record_all();
}

}  // namespace nibble
