// Dispatches of heads and of the cache.
#include "backends/metal/metal_device.h"
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

StepRecorder::AttentionKernel StepRecorder::attention_kernel(int64_t dim, int64_t num_queries, bool tiles) const {
  if (tiles && dim <= 256)
    return {.name = fmt::format("{}_{}", cached_kernel_name("attention_tiles"), dim <= 128 ? 128 : 256),
            .num_simdgroups = kQueryTile / 8,
            .num_queries = kQueryTile,
            .may_split = false};
  struct Variant {
    int64_t largest;
    uint32_t num_simdgroups, num_queries;
  };
  for (const Variant& variant : {Variant{128, 8, 4}, Variant{256, 8, 4}, Variant{640, 4, 2}, Variant{1024, 4, 1}}) {
    if (dim > variant.largest) continue;
    const bool is_block = num_queries > 1 && variant.num_queries > 1;
    return {
        .name = fmt::format("{}_{}", cached_kernel_name(is_block ? "attention_block" : "attention"), variant.largest),
        .num_simdgroups = variant.num_simdgroups,
        .num_queries = is_block ? variant.num_queries : 1};
  }
  throw_input_error(
      "backend metal: attention over heads of {} values; it has kernels for up to 1024, --backend cpu for any", dim);
}

void StepRecorder::add_attention(const Dispatch& what, Kernel kernel, AttentionArguments a, int layer,
                                 const AttentionOperands& of) {
  const KvLayer& kv = kv_layer(layer);
  const int64_t M = step_.M, heads = a.num_heads, num_queries = M * a.group_size;  // of a key head
  const bool is_latent = kernel.constants[kIsLatent];
  const AttentionKernel choice = attention_kernel(a.key_dim, num_queries, takes_tiles(M) && !is_latent);
  const int64_t num_kv_heads = heads / a.group_size, num_blocks = divide_up(num_queries, choice.num_queries);
  a.k_width = u32(kv.k_width);
  a.v_width = u32(kv.v_width);
  a.num_rows = num_rows(layer);
  const bool has_values = kv.v_width > 0;
  // A window may begin amid a part.
  const int64_t positions =
      a.window > 0 ? std::min<int64_t>(a.window + kAttendPart - 1, cache_shape_.max_len) : cache_shape_.max_len;
  const int64_t most_parts = divide_up(positions, kAttendPart);
  const int64_t num_splits =
      std::clamp<int64_t>(divide_up(kBusyThreadgroups, num_kv_heads * num_blocks), 1, most_parts);
  const bool splits = num_splits > 1 && choice.may_split;
  a.num_splits = splits ? u32(num_splits) : 1;
  a.most_parts = u32(most_parts);
  a.M = u32(M);
  const int64_t part_values = splits ? M * heads * most_parts * (a.value_dim + 2) : 0;
  const MetalBinding partials =
      splits ? bind_shared(kAttentionParts, part_values * int64_t{sizeof(float)}) : bind_nothing();
  const Slice partials_slice = shared_slice(kAttentionParts);

  kernel.name = choice.name;
  kernel.constants[kHasSinks] = bool{of.sinks};
  kernel.constants[kSplits] = splits;
  RecordedDispatch d = make(what, kernel, a);
  d.buffers = {bind(of.q), of.q_rope ? bind(*of.q_rope) : bind_nothing()};
  bind_cache(d, layer, true);
  bind_cache(d, layer, !has_values);
  d.buffers.insert(d.buffers.end(), {bind_vector(of.sinks), bind_pos(), bind_sequence(), bind(of.out), partials});
  OpSlices slices{{of.q, cache_slice(layer)}, {splits ? partials_slice : of.out}};
  if (of.q_rope) slices.reads.push_back(*of.q_rope);
  add(std::move(d), slices, {u32(num_kv_heads), u32(num_blocks), a.num_splits}, choice.num_simdgroups * kLanes);
  if (!splits) return;

  Kernel merge{.name = "merge_attention"};
  merge.constants[kHasSinks] = bool{of.sinks};
  RecordedDispatch m = make(what, merge, a);
  m.buffers = {partials, bind_vector(of.sinks), bind_pos(), bind(of.out)};
  add(std::move(m), {{partials_slice}, {of.out}}, {a.num_heads, u32(M)}, kThreads);
}

void StepRecorder::record(const AttentionOp& op, const Dispatch& what) {
  add_attention(what, {},
                {.key_dim = u32(op.head_dim),
                 .value_dim = u32(op.head_dim),
                 .group_size = u32(op.num_heads / op.num_kv_heads),
                 .q_stride = stride(op.q),
                 .out_stride = stride(op.out),
                 .window = u32(op.window),
                 .scale = op.scale,
                 .num_heads = u32(op.num_heads)},
                op.layer, {.q = op.q, .q_rope = {}, .sinks = op.sinks, .out = op.out});
}

void StepRecorder::record(const LatentAttentionOp& op, const Dispatch& what) {
  const int64_t q_head_dim = op.q.width / op.num_heads;
  Kernel kernel;
  kernel.constants[kIsLatent] = true;
  add_attention(what, kernel,
                {.key_dim = u32(op.latent_dim + op.rope_dim),
                 .value_dim = u32(op.latent_dim),
                 .group_size = u32(op.num_heads),
                 .q_stride = stride(op.q_latent),
                 .out_stride = stride(op.out),
                 .q_rope_stride = stride(op.q),
                 .q_rope_head_stride = u32(q_head_dim),
                 .q_rope_first = u32(q_head_dim - op.rope_dim),
                 .scale = op.scale,
                 .num_heads = u32(op.num_heads)},
                op.layer, {.q = op.q_latent, .q_rope = op.q, .sinks = {}, .out = op.out});
}

}  // namespace nibble
