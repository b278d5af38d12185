// softmax(scale * q · k) · v over the cached positions of a token's sequence, for one head; with sinks, windows, and
// the latents of absorbed MLA, where a key is its own value.
//
// Work    positions are cut into parts that begin at multiples of kAttendPart. A threadgroup has kQueries heads of tokens that
//         read the same keys: first a token's heads that share a key, then those of the next token. Its simdgroups take turns
//         with the positions of a part, each of which they read once for all the queries whose sequence is the same; a lane has
//         every 32nd value of the head. Each simdgroup keeps its largest score, its total and its sums, which are put together
//         at the end of the part, in their order; parts are put together in theirs. Where a step has few queries, threadgroups
//         share the parts (as in flash-decoding: arXiv:2205.14135 and its authors' notes on decoding) and merge_attention puts
//         them together: the same numbers in the same order, so that a result depends neither on that nor on the other
//         queries of the threadgroup.
// Needs   heads of at most 32 * kValues values.
#include <metal_stdlib>

#include "backends/metal/softmax.h"

using namespace metal;
using namespace nibble;

constant bool is_latent [[function_constant(kIsLatent)]];
constant bool splits [[function_constant(kSplits)]];

// A part's largest score, total and sums of a head of a token.
static inline device float* partial_of(device float* partials, constant AttentionArguments& a, uint m, uint head,
                                       uint part) {
  return partials + ((ulong(m) * a.num_heads + head) * a.most_parts + part) * (a.value_dim + 2);
}

template <typename T, int kValues, int kSimdgroups, int kQueries>
kernel void attention(
    constant AttentionArguments& a,
    device const float* q,       // [M, heads, key_dim]; of latents [M, heads, value_dim]
    device const float* q_rope,  // [M, heads, what is not read and the rotated part], of latents only
    device const T* k_cache,     // [sequences, num_rows, k_width]
    device const T* v_cache,     // [sequences, num_rows, v_width]
    device const float* sinks,   // [heads]
    device const int* pos,       // [M]
    device const int* sequence,  // [M]
    device float* out,           // [M, heads, value_dim]
    device float* partials,      // [M, heads, most_parts, 2 + value_dim], if threadgroups share the parts
    uint3 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kThreadsHere = kSimdgroups * kLanes, kOwn = (kValues + kSimdgroups - 1) / kSimdgroups;
  threadgroup float largest_of[kSimdgroups];
  threadgroup float total_of[kSimdgroups];
  threadgroup float sums_of[kSimdgroups * kValues * kLanes];
  const uint kv_head = threadgroup_id.x, first_query = threadgroup_id.y * kQueries;

  float query[kQueries][kValues];
  Positions p[kQueries];
  uint sequence_of[kQueries];
  uint all_first = ~0u, all_end = 0;
  for (uint n = 0; n < kQueries; n++) {
    const bool is_there = first_query + n < a.M * a.group_size;
    const Query at_query = query_of(a, kv_head, is_there ? first_query + n : 0);
    const uint m = at_query.m, head = at_query.head;
    p[n] = positions_of(a, uint(pos[m]));
    if (!is_there) p[n].end = p[n].first = 0;
    sequence_of[n] = uint(sequence[m]);
    all_first = is_there ? min(all_first, p[n].first) : all_first;
    all_end = max(all_end, p[n].end);
    for (int i = 0; i < kValues; i++) {
      const uint at = i * kLanes + lane;
      query[n][i] = 0.0f;
      if (at >= a.key_dim) continue;
      if (!is_latent)
        query[n][i] = q[m * a.q_stride + head * a.key_dim + at];
      else if (at < a.value_dim)
        query[n][i] = q[m * a.q_stride + head * a.value_dim + at];
      else
        query[n][i] = q_rope[m * a.q_rope_stride + head * a.q_rope_head_stride + a.q_rope_first + at - a.value_dim];
    }
  }

  Softmax softmax[kQueries];
  float own[kQueries][kOwn];  // sums of values thread_id, thread_id + kThreadsHere …
  for (uint n = 0; n < kQueries; n++) {
    softmax[n].largest = -INFINITY;
    softmax[n].total = 0.0f;
    for (uint i = 0; i < kOwn; i++) own[n][i] = 0.0f;
  }
  for (uint part = all_first / kAttendPart + threadgroup_id.z; part * kAttendPart < all_end; part += a.num_splits) {
    const uint end = min((part + 1) * kAttendPart, all_end);
    float sums[kQueries][kValues];
    float largest[kQueries], total[kQueries], shrink[kQueries], weight[kQueries];
    for (uint n = 0; n < kQueries; n++) {
      for (int i = 0; i < kValues; i++) sums[n][i] = 0.0f;
      largest[n] = -INFINITY;
      total[n] = 0.0f;
    }
    for (uint t = part * kAttendPart + simdgroup; t < end; t += kSimdgroups) {
      if (t < all_first) continue;
      float values[kValues];  // of a key or a value
      uint whose = ~0u;       // the sequence that they are of
      for (uint n = 0; n < kQueries; n++) {
        if (t < p[n].first || t >= p[n].end) continue;
        if (whose != sequence_of[n]) {
          whose = sequence_of[n];
          const ulong row = ulong(whose) * a.num_rows + t % a.num_rows;  // a window's cache is a ring
          device const T* key = k_cache + row * a.k_width + (is_latent ? 0 : kv_head * a.key_dim);
          for (int i = 0; i < kValues; i++) {
            const uint at = i * kLanes + lane;
            values[i] = at < a.key_dim ? float(key[at]) : 0.0f;
          }
        }
        float products = 0.0f;
        for (int i = 0; i < kValues; i++) products = fma(query[n][i], values[i], products);
        const float score = a.scale * simd_sum(products);
        const float above = max(largest[n], score);
        shrink[n] = exp(largest[n] - above);
        weight[n] = exp(score - above);
        total[n] = fma(total[n], shrink[n], weight[n]);
        largest[n] = above;
      }
      if (!is_latent) whose = ~0u;  // a latent is its own value
      for (uint n = 0; n < kQueries; n++) {
        if (t < p[n].first || t >= p[n].end) continue;
        if (whose != sequence_of[n]) {
          whose = sequence_of[n];
          const ulong row = ulong(whose) * a.num_rows + t % a.num_rows;
          device const T* value = is_latent ? k_cache + row * a.k_width : v_cache + row * a.v_width + kv_head * a.key_dim;
          for (int i = 0; i < kValues; i++) {
            const uint at = i * kLanes + lane;
            values[i] = at < a.value_dim ? float(value[at]) : 0.0f;
          }
        }
        for (int i = 0; i < kValues; i++) sums[n][i] = fma(weight[n], values[i], sums[n][i] * shrink[n]);
      }
    }

    for (uint n = 0; n < kQueries; n++) {
      if (part < first_part(p[n]) || part >= end_part(p[n])) continue;
      if (lane == 0) {
        largest_of[simdgroup] = largest[n];
        total_of[simdgroup] = total[n];
      }
      for (int i = 0; i < kValues; i++) sums_of[(simdgroup * kValues + i) * kLanes + lane] = sums[n][i];
      threadgroup_barrier(mem_flags::mem_threadgroup);
      float above = largest_of[0], all = 0.0f;
      for (int s = 1; s < kSimdgroups; s++) above = max(above, largest_of[s]);
      for (int s = 0; s < kSimdgroups; s++) all += total_of[s] * exp(largest_of[s] - above);
      const Query at_query = query_of(a, kv_head, first_query + n);
      device float* partial = partial_of(partials, a, at_query.m, at_query.head, part - first_part(p[n]));
      if (splits && thread_id == 0) {
        partial[0] = above;
        partial[1] = all;
      }
      if (!splits) add_part(softmax[n], above, all);
      for (uint i = 0; i < kOwn; i++) {
        const uint at = i * kThreadsHere + thread_id;
        if (at >= a.value_dim) continue;
        float sum = 0.0f;
        for (int s = 0; s < kSimdgroups; s++) sum += sums_of[s * kValues * kLanes + at] * exp(largest_of[s] - above);
        if (splits)
          partial[2 + at] = sum;
        else
          own[n][i] = add_sums(softmax[n], own[n][i], sum);
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);  // the next ones go to the same place
    }
  }
  if (splits) return;
  for (uint n = 0; n < kQueries && first_query + n < a.M * a.group_size; n++) {
    const Query at_query = query_of(a, kv_head, first_query + n);
    device float* to = out + at_query.m * a.out_stride + at_query.head * a.value_dim;
    for (uint i = 0; i < kOwn; i++) {
      const uint at = i * kThreadsHere + thread_id;
      if (at < a.value_dim) to[at] = share_of(softmax[n], own[n][i], sinks, at_query.head);
    }
  }
}

// The parts of a head of a token; a thread has some of its values.
kernel void merge_attention(
    constant AttentionArguments& a,
    device float* partials,     // [M, heads, most_parts, 2 + value_dim]
    device const float* sinks,  // [heads]
    device const int* pos,      // [M]
    device float* out,          // [M, heads, value_dim]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]]) {
  const uint head = threadgroup_id.x, m = threadgroup_id.y;
  const Positions p = positions_of(a, uint(pos[m]));
  for (uint at = thread_id; at < a.value_dim; at += kThreads) {
    Softmax softmax = {-INFINITY, 0.0f, 0.0f, 0.0f};
    float sum = 0.0f;
    for (uint part = 0; part < end_part(p) - first_part(p); part++) {
      device const float* partial = partial_of(partials, a, m, head, part);
      add_part(softmax, partial[0], partial[1]);
      sum = add_sums(softmax, sum, partial[2 + at]);
    }
    out[m * a.out_stride + head * a.value_dim + at] = share_of(softmax, sum, sinks, head);
  }
}

// 8 simdgroups of 1024 values would take all of a threadgroup's memory. More queries would take more registers than leave a
// core with several threadgroups: each has its values and its sums, up to 40 floats of a lane.
#define instantiate(name, T, kValues, kSimdgroups, kQueries)                                      \
  template [[host_name(name)]] [[kernel]] decltype(attention<T, kValues, kSimdgroups, kQueries>)  \
      attention<T, kValues, kSimdgroups, kQueries>;
#define instantiate_each(name, T)                       \
  instantiate("attention_" name "_128", T, 4, 8, 1)         \
  instantiate("attention_" name "_256", T, 8, 8, 1)         \
  instantiate("attention_" name "_640", T, 20, 4, 1)        \
  instantiate("attention_" name "_1024", T, 32, 4, 1)       \
  instantiate("attention_block_" name "_128", T, 4, 8, 4)   \
  instantiate("attention_block_" name "_256", T, 8, 8, 4)   \
  instantiate("attention_block_" name "_640", T, 20, 4, 2)
instantiate_each("f16", half)
instantiate_each("f32", float)
