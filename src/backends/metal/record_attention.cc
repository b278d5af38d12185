// Dispatches of heads and of the cache.
#include "backends/metal/step_recorder.h"
#include "base/error.h"

namespace nibble {

using namespace metal_fusion;

void StepRecorder::record(const Heads& heads, const Dispatch& what) {
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
                   .num_rows = num_rows(append.layer),
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

void StepRecorder::record(const KvAppendOp& op, const Dispatch& what) {
  const KvAppendArguments a{.k_width = u32(op.k.width),
                            .v_width = u32(op.v.width),
                            .k_stride = stride(op.k),
                            .v_stride = op.v.width > 0 ? stride(op.v) : 0,
                            .num_rows = num_rows(op.layer)};
  RecordedDispatch d = make(what, {cached_kernel_name("kv_append")}, a);
  d.buffers = {bind(op.k), op.v.width > 0 ? bind(op.v) : bind_nothing(), bind_pos(), bind_sequence()};
  bind_cache(d, op.layer, true);
  bind_cache(d, op.layer, op.v.width == 0);  // there are no values
  OpSlices slices = op_slices(op);
  slices.writes.push_back(cache_slice(op.layer));
  add_elementwise(std::move(d), slices, std::max(op.k.width, op.v.width), step_.M);
}

std::pair<std::string, uint32_t> StepRecorder::attention_kernel(int64_t dim) const {
  struct Variant {
    int64_t largest;
    uint32_t num_simdgroups;
  };
  for (const Variant& variant : {Variant{128, 8}, Variant{256, 8}, Variant{640, 4}, Variant{1024, 4}})
    if (dim <= variant.largest)
      return {fmt::format("{}_{}", cached_kernel_name("attention"), variant.largest), variant.num_simdgroups};
  throw_input_error("backend metal: attention over heads of {} values; it has kernels for up to 1024", dim);
}

void StepRecorder::record(const AttentionOp& op, const Dispatch& what) {
  const AttentionArguments a{.key_dim = u32(op.head_dim),
                             .value_dim = u32(op.head_dim),
                             .group_size = u32(op.num_heads / op.num_kv_heads),
                             .q_stride = stride(op.q),
                             .out_stride = stride(op.out),
                             .k_width = u32(kv_layer(op.layer).k_width),
                             .v_width = u32(kv_layer(op.layer).v_width),
                             .num_rows = num_rows(op.layer),
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

void StepRecorder::record(const LatentAttentionOp& op, const Dispatch& what) {
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
                             .num_rows = num_rows(op.layer),
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

}  // namespace nibble
