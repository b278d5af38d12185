#include "backends/metal/record_step.h"

#include <algorithm>

#include "backends/metal/metal_fuse.h"
#include "backends/metal/metal_matrix.h"
#include "base/error.h"

namespace nibble {

namespace {

using namespace metal_fusion;

uint32_t u32(int64_t value) { return static_cast<uint32_t>(value); }
int64_t divide_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

std::unique_ptr<MetalBuffer> make_floats(MetalDevice& device, int64_t count) {
  return device.make_buffer(static_cast<size_t>(count) * sizeof(float));
}

class StepRecorder {
 public:
  StepRecorder(const Step& step, std::span<const PackedWeight* const> weights, const KvCacheShape& cache_shape,
               MetalDevice& device, MetalKernels& kernels, MetalScratch& scratch)
      : step_(step),
        weights_(weights),
        cache_shape_(cache_shape),
        device_(device),
        kernels_(kernels),
        scratch_(scratch) {}

  RecordedStep record_all() {
    const auto format = [this](WeightId id) { return matrix(id).format; };
    for (const Dispatch& dispatch : fuse(step_, format))
      std::visit([&](const auto& d) { record(d, dispatch); }, dispatch);
    return std::move(recorded_);
  }

 private:
  // ---- what dispatches are made of ----

  const MetalMatrix& matrix(WeightId id) const {
    return static_cast<const MetalMatrix&>(*weights_[static_cast<size_t>(id.index)]);
  }
  std::string kernel_name(std::string_view stem, WeightId id) const {
    return fmt::format("{}_{}", stem, metal_format_name(matrix(id).format));
  }
  std::string cached_kernel_name(std::string_view stem) const {
    return fmt::format("{}_{}", stem, kv_cache_type_name(cache_shape_.type));
  }
  int64_t rows(const Slice& slice) const {
    return step_.num_rows(step_.buffers[static_cast<size_t>(slice.buffer)].rows);
  }
  uint32_t stride(const Slice& slice) const { return u32(scratch_.strides[static_cast<size_t>(slice.buffer)]); }
  static bool is_aligned(const Slice& slice) { return slice.first % 4 == 0; }

  MetalBinding bind(const Slice& slice) const {
    return {scratch_.buffers[static_cast<size_t>(slice.buffer)].get(),
            static_cast<size_t>(slice.first) * sizeof(float)};
  }
  MetalBinding bind(WeightId matrix_or_none) const {
    return {matrix_or_none ? matrix(matrix_or_none).buffer.get() : scratch_.nothing.get(), 0};
  }
  MetalBinding bind_vector(WeightId id) const {
    return {id ? static_cast<const MetalVector&>(*weights_[static_cast<size_t>(id.index)]).buffer.get()
               : scratch_.nothing.get(),
            0};
  }
  MetalBinding bind_nothing() const { return {scratch_.nothing.get(), 0}; }
  MetalBinding bind_pos() const { return {scratch_.pos.get(), 0}; }
  MetalBinding bind_sequence() const { return {scratch_.sequence.get(), 0}; }
  MetalBinding bind_turns(int rotation) const { return {scratch_.turns[static_cast<size_t>(rotation)].get(), 0}; }
  // Filled in by run.
  void bind_cache(RecordedDispatch& d, int layer, bool is_k) const {
    d.planes.push_back({d.buffers.size(), static_cast<size_t>(layer), is_k});
    d.buffers.emplace_back();
  }
  const KvLayer& kv_layer(int layer) const { return cache_shape_.layers[static_cast<size_t>(layer)]; }

  struct Kernel {
    std::string name;
    FunctionConstants constants = {};
  };

  template <class Arguments>
  RecordedDispatch make(const Dispatch& what, const Kernel& kernel, const Arguments& arguments) {
    RecordedDispatch d;
    d.kernel = &kernels_.get(kernel.name, kernel.constants);
    d.plan = {.name = dispatch_name(what), .kernel = kernel.name, .matrices = matrices_of(what)};
    d.info.name = fmt::format("{} ({})", d.plan.name, d.plan.kernel);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&arguments);
    d.arguments.assign(bytes, bytes + sizeof arguments);
    return d;
  }

  // The cache of a layer counts as a buffer behind those of the step.
  Slice cache_slice(int layer) const { return {static_cast<int>(step_.buffers.size()) + layer, 0, 1}; }

  // `slices` say what it reads and writes: a barrier comes before it if it needs the result of one that may still run, or
  // would overwrite what one reads.
  void add(RecordedDispatch d, const OpSlices& slices, MetalSize threadgroups, uint32_t threads) {
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
    recorded_.dispatches.push_back(std::move(d));
  }

  // ---- matrices ----

  static int64_t row_threadgroups(int64_t N) { return divide_up(N, kRows * kRowSimdgroups); }

  void record(const Linears& group, const Dispatch& what) {
    const Slice& x = group.norm ? group.norm->x : group.linears[0].x;
    const LinearOp& first = group.linears[0];
    const int64_t M = rows(x);
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
      threadgroups += row_threadgroups(matrix(op.w).N);
      bytes += matrix(op.w).bytes;
      slices.writes.push_back(op.out);
      if (op.accumulate) slices.reads.push_back(op.out);
    }
    Kernel kernel{.name = kernel_name(M == 1 ? "linear" : "linear_block", first.w)};
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
    add(std::move(d), slices, {u32(threadgroups), u32(divide_up(M, M == 1 ? 1 : kTokenBlock))},
        kRowSimdgroups * kLanes);
  }

  void record(const DenseGateUp& pair, const Dispatch& what) {
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
    add(std::move(d), {{x}, {pair.swiglu.out}}, {u32(row_threadgroups(gate.N)), 1, u32(rows(x))},
        kRowSimdgroups * kLanes);
  }

  void record(const HeadLinearOp& op, const Dispatch& what) {
    const MetalMatrix& w = matrix(op.w);
    const int64_t M = rows(op.x), head_dim = op.x.width / op.num_heads;
    const HeadLinearArguments a{.w = w.arguments,
                                .M = u32(M),
                                .K = u32(w.K),
                                .x_stride = stride(op.x),
                                .x_head_stride = u32(head_dim),
                                .out_stride = stride(op.out)};
    Kernel kernel{.name = kernel_name(M == 1 ? "head_linear" : "head_linear_block", op.w)};
    kernel.constants[kAligned] = is_aligned(op.x) && head_dim % 4 == 0;
    RecordedDispatch d = make(what, kernel, a);
    d.info.weight_bytes = w.bytes;
    d.buffers = {bind(op.x), bind(op.w), bind(op.out)};
    add(std::move(d), {{op.x}, {op.out}},
        {u32(row_threadgroups(w.N)), u32(divide_up(M, M == 1 ? 1 : kTokenBlock)), u32(op.num_heads)},
        kRowSimdgroups * kLanes);
  }

  // ---- experts ----

  // A buffer for the experts that a dispatch uses, of which `bytes_of_one` are read each.
  MetalBinding bind_used(int64_t count, int64_t bytes_of_one) {
    scratch_.used.push_back(make_floats(device_, count));
    recorded_.used_experts.push_back({recorded_.dispatches.size(), bytes_of_one, scratch_.used.back().get(), count});
    return {scratch_.used.back().get(), 0};
  }
  static int64_t bytes_of_one(const MetalMatrix& w) { return w.bytes / w.E; }

  void record(const ExpertGateUp& part, const Dispatch& what) {
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
    add(std::move(d), slices, {u32(row_threadgroups(gate.N)), u32(top_k), u32(M)}, kRowSimdgroups * kLanes);
  }

  void record(const MoeDownOp& op, const Dispatch& what) {
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
    add(std::move(d), op_slices(op), {u32(row_threadgroups(w.N)), u32(M)}, kRowSimdgroups * kLanes);
  }

  void record(const RouteOp& op, const Dispatch& what) {
    if (op.logits.width > kMostExperts)
      throw_input_error("backend metal: {} experts; it has kernels for up to {}", op.logits.width,
                        int64_t{kMostExperts});
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

  // ---- attention ----

  void record(const Heads& heads, const Dispatch& what) {
    const KvAppendOp& append = heads.append;
    const bool has_values = append.v.width > 0;
    const auto head = [&](const Slice& x, int64_t num_heads, const std::optional<RmsNormOp>& norm, int64_t rope_first) {
      return HeadArguments{.head_dim = u32(x.width / num_heads),
                           .stride = stride(x),
                           .norm_width = norm ? u32(norm->x.width / num_heads) : 0,
                           .rope_first = u32(rope_first),
                           .eps = norm ? norm->eps : 0};
    };
    HeadsArguments a{.q = head(heads.q, heads.num_heads, heads.q_norm, heads.rope ? heads.rope->first : 0),
                     .k = head(append.k, heads.num_kv_heads, heads.k_norm, heads.k_rope_first),
                     .num_heads = u32(heads.num_heads),
                     .num_kv_heads = u32(heads.num_kv_heads),
                     .v_stride = has_values ? stride(append.v) : 0,
                     .max_len = u32(cache_shape_.max_len),
                     .M = u32(step_.M)};
    Kernel kernel{.name = cached_kernel_name("heads")};
    kernel.constants[kHasNorm] = heads.q_norm.has_value();
    kernel.constants[kHasKNorm] = heads.k_norm.has_value();
    if (const auto& rope = heads.rope) {
      a.num_pairs = u32(static_cast<int64_t>(step_.rotations[static_cast<size_t>(rope->rotation)].inv_freq.size()));
      kernel.constants[kHasRope] = true;
      kernel.constants[kIsInterleaved] = rope->interleaved;
    }
    RecordedDispatch d = make(what, kernel, a);
    d.buffers = {bind(heads.q),
                 bind(append.k),
                 has_values ? bind(append.v) : bind_nothing(),
                 bind_vector(heads.q_norm ? heads.q_norm->weight : WeightId{}),
                 bind_vector(heads.k_norm ? heads.k_norm->weight : WeightId{}),
                 heads.rope ? bind_turns(heads.rope->rotation) : bind_nothing(),
                 bind_pos(),
                 bind_sequence()};
    bind_cache(d, append.layer, true);
    bind_cache(d, append.layer, !has_values);
    OpSlices slices{{heads.q, append.k}, {heads.q, append.k, cache_slice(append.layer)}};
    if (has_values) slices.reads.push_back(append.v);
    add(std::move(d), slices, {u32(heads.num_heads + (has_values ? 2 : 1) * heads.num_kv_heads), u32(step_.M)}, kLanes);
  }

  void record(const KvAppendOp& op, const Dispatch& what) {
    const KvAppendArguments a{.k_width = u32(op.k.width),
                              .v_width = u32(op.v.width),
                              .k_stride = stride(op.k),
                              .v_stride = op.v.width > 0 ? stride(op.v) : 0,
                              .max_len = u32(cache_shape_.max_len)};
    RecordedDispatch d = make(what, {cached_kernel_name("kv_append")}, a);
    d.buffers = {bind(op.k), op.v.width > 0 ? bind(op.v) : bind_nothing(), bind_pos(), bind_sequence()};
    bind_cache(d, op.layer, true);
    bind_cache(d, op.layer, op.v.width == 0);  // there are no values
    OpSlices slices = op_slices(op);
    slices.writes.push_back(cache_slice(op.layer));
    add_elementwise(std::move(d), slices, std::max(op.k.width, op.v.width), step_.M);
  }

  // The kernel for heads of `dim` values, and how many simdgroups it has.
  std::pair<std::string, uint32_t> attention_kernel(int64_t dim) const {
    struct Variant {
      int64_t largest;
      uint32_t num_simdgroups;
    };
    for (const Variant& variant : {Variant{128, 8}, Variant{256, 8}, Variant{640, 4}, Variant{1024, 4}})
      if (dim <= variant.largest)
        return {fmt::format("{}_{}", cached_kernel_name("attention"), variant.largest), variant.num_simdgroups};
    throw_input_error("backend metal: attention over heads of {} values; it has kernels for up to 1024", dim);
  }

  void record(const AttentionOp& op, const Dispatch& what) {
    const AttentionArguments a{.key_dim = u32(op.head_dim),
                               .value_dim = u32(op.head_dim),
                               .group_size = u32(op.num_heads / op.num_kv_heads),
                               .q_stride = stride(op.q),
                               .out_stride = stride(op.out),
                               .k_width = u32(kv_layer(op.layer).k_width),
                               .v_width = u32(kv_layer(op.layer).v_width),
                               .max_len = u32(cache_shape_.max_len),
                               .window = u32(op.window),
                               .scale = op.scale};
    const auto [name, num_simdgroups] = attention_kernel(op.head_dim);
    Kernel kernel{.name = name};
    kernel.constants[kHasSinks] = bool{op.sinks};
    RecordedDispatch d = make(what, kernel, a);
    d.buffers = {bind(op.q), bind_nothing()};
    bind_cache(d, op.layer, true);
    bind_cache(d, op.layer, false);
    d.buffers.insert(d.buffers.end(), {bind_vector(op.sinks), bind_pos(), bind_sequence(), bind(op.out)});
    add(std::move(d), {{op.q, cache_slice(op.layer)}, {op.out}}, {u32(op.num_heads), u32(step_.M)},
        num_simdgroups * kLanes);
  }

  void record(const LatentAttentionOp& op, const Dispatch& what) {
    const int64_t q_head_dim = op.q.width / op.num_heads, width = op.latent_dim + op.rope_dim;
    const AttentionArguments a{.key_dim = u32(width),
                               .value_dim = u32(op.latent_dim),
                               .group_size = u32(op.num_heads),
                               .q_stride = stride(op.q_latent),
                               .out_stride = stride(op.out),
                               .q_rope_stride = stride(op.q),
                               .q_rope_head_stride = u32(q_head_dim),
                               .q_rope_first = u32(q_head_dim - op.rope_dim),
                               .k_width = u32(kv_layer(op.layer).k_width),
                               .max_len = u32(cache_shape_.max_len),
                               .scale = op.scale};
    const auto [name, num_simdgroups] = attention_kernel(width);
    Kernel kernel{.name = name};
    kernel.constants[kIsLatent] = true;
    RecordedDispatch d = make(what, kernel, a);
    d.buffers = {bind(op.q_latent), bind(op.q)};
    bind_cache(d, op.layer, true);
    bind_cache(d, op.layer, true);
    d.buffers.insert(d.buffers.end(), {bind_nothing(), bind_pos(), bind_sequence(), bind(op.out)});
    add(std::move(d), {{op.q_latent, op.q, cache_slice(op.layer)}, {op.out}}, {u32(op.num_heads), u32(step_.M)},
        num_simdgroups * kLanes);
  }

  // ---- a thread for each value ----

  void add_elementwise(RecordedDispatch d, const OpSlices& slices, int64_t width, int64_t y, int64_t z = 1) {
    add(std::move(d), slices, {u32(divide_up(width, kThreads)), u32(y), u32(z)}, kThreads);
  }

  void record(const EmbedOp& op, const Dispatch& what) {
    const MetalMatrix& w = matrix(op.w);
    RecordedDispatch d =
        make(what, {kernel_name("embed", op.w)}, EmbedArguments{w.arguments, u32(w.K), stride(op.out)});
    d.buffers = {bind(op.w), {scratch_.tokens.get(), 0}, bind(op.out)};
    add_elementwise(std::move(d), op_slices(op), w.arguments.num_chunks, rows(op.out));
  }
  void record(const RmsNormOp& op, const Dispatch& what) {
    const RmsNormArguments a{
        .width = u32(op.x.width / op.num_heads), .x_stride = stride(op.x), .out_stride = stride(op.out), .eps = op.eps};
    RecordedDispatch d = make(what, {"rms_norm"}, a);
    d.buffers = {bind(op.x), bind_vector(op.weight), bind(op.out)};
    add(std::move(d), op_slices(op), {u32(op.num_heads), u32(rows(op.x))}, kLanes);
  }
  void record(const RopeOp& op, const Dispatch& what) {
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
  void record(const SwigluOp& op, const Dispatch& what) {
    RecordedDispatch d =
        make(what, {"swiglu"}, SwigluArguments{u32(op.out.width), stride(op.gate), stride(op.up), stride(op.out)});
    d.buffers = {bind(op.gate), bind(op.up), bind(op.out)};
    add_elementwise(std::move(d), op_slices(op), op.out.width, rows(op.out));
  }
  void record(const SelectLogitsOp& op, const Dispatch& what) {
    const CopyRowsArguments a{.width = u32(op.out.width),
                              .x_stride = stride(op.x),
                              .out_stride = stride(op.out),
                              .first_row = u32(rows(op.x) - rows(op.out))};
    RecordedDispatch d = make(what, {"copy_rows"}, a);
    d.buffers = {bind(op.x), bind(op.out)};
    add_elementwise(std::move(d), op_slices(op), op.out.width, rows(op.out));
  }

  const Step& step_;
  std::span<const PackedWeight* const> weights_;
  const KvCacheShape& cache_shape_;
  MetalDevice& device_;
  MetalKernels& kernels_;
  MetalScratch& scratch_;
  RecordedStep recorded_;
  OpSlices running_;  // what has been read and written since the last barrier
};

}  // namespace

MetalScratch::MetalScratch(const Step& step, MetalDevice& device)
    : tokens(make_floats(device, step.M)),
      pos(make_floats(device, step.M)),
      sequence(make_floats(device, step.M)),
      nothing(make_floats(device, 1)) {
  for (const StepBuffer& buffer : step.buffers) {
    strides.push_back(divide_up(buffer.width, 4) *
                      4);  // rows begin at a multiple of 16 bytes, as the kernels read them
    buffers.push_back(make_floats(device, step.num_rows(buffer.rows) * strides.back()));
  }
  for (const Rotation& rotation : step.rotations)
    turns.push_back(make_floats(device, 2 * step.M * static_cast<int64_t>(rotation.inv_freq.size())));
}

int64_t MetalScratch::bytes() const {
  size_t bytes = tokens->size() + pos->size() + sequence->size() + nothing->size();
  for (const auto* list : {&buffers, &turns, &used})
    for (const auto& buffer : *list) bytes += buffer->size();
  return static_cast<int64_t>(bytes);
}

RecordedStep record_step(const Step& step, std::span<const PackedWeight* const> weights,
                         const KvCacheShape& cache_shape, MetalDevice& device, MetalKernels& kernels,
                         MetalScratch& scratch) {
  if (step.linear_route == LinearRoute::always_tiles)
    throw_input_error("backend metal: it has no route with tiles for every number of tokens");
  return StepRecorder(step, weights, cache_shape, device, kernels, scratch).record_all();
}

}  // namespace nibble
