// softmax(scale * q · k) · v over the cached positions of a token's sequence, for one head; with sinks, windows, and
// the latents of absorbed MLA, where a key is its own value.
//
// Work    a threadgroup has one head of one token, its simdgroups take turns with the positions. A lane has every 32nd
//         value of the head. Each simdgroup keeps its largest score, its total and its sums; they are put together at
//         the end, in their order, so that a result does not depend on the other tokens of the step.
// Needs   heads of at most 32 * kValues values.
#include <metal_stdlib>

#include "backends/metal/arguments.h"

using namespace metal;
using namespace nibble;

constant bool has_sinks [[function_constant(kHasSinks)]];
constant bool is_latent [[function_constant(kIsLatent)]];

template <typename T, int kValues, int kSimdgroups>
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
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float largest_of[kSimdgroups];
  threadgroup float total_of[kSimdgroups];
  threadgroup float sums_of[kSimdgroups * kValues * kLanes];
  const uint head = threadgroup_id.x, m = threadgroup_id.y;
  const uint len = uint(pos[m]) + 1, first = a.window > 0 && a.window < len ? len - a.window : 0;
  const ulong sequence_row = ulong(sequence[m]) * a.num_rows;
  const uint kv_first = head / a.group_size * a.key_dim;

  float query[kValues], sums[kValues];
  for (int i = 0; i < kValues; i++) {
    const uint at = i * kLanes + lane;
    query[i] = 0.0f;
    sums[i] = 0.0f;
    if (at >= a.key_dim) continue;
    if (!is_latent)
      query[i] = q[m * a.q_stride + head * a.key_dim + at];
    else if (at < a.value_dim)
      query[i] = q[m * a.q_stride + head * a.value_dim + at];
    else
      query[i] = q_rope[m * a.q_rope_stride + head * a.q_rope_head_stride + a.q_rope_first + at - a.value_dim];
  }

  float largest = -INFINITY, total = 0.0f;
  for (uint t = first + simdgroup; t < len; t += kSimdgroups) {
    const ulong row = sequence_row + t % a.num_rows;  // a window's cache is a ring
    device const T* key = k_cache + row * a.k_width + (is_latent ? 0 : kv_first);
    device const T* value = is_latent ? key : v_cache + row * a.v_width + kv_first;
    float products = 0.0f;
    for (int i = 0; i < kValues; i++) {
      const uint at = i * kLanes + lane;
      if (at < a.key_dim) products = fma(query[i], float(key[at]), products);
    }
    const float score = a.scale * simd_sum(products);
    const float above = max(largest, score);
    const float shrink = exp(largest - above), weight = exp(score - above);
    total = total * shrink + weight;
    for (int i = 0; i < kValues; i++) {
      const uint at = i * kLanes + lane;
      if (at < a.value_dim) sums[i] = sums[i] * shrink + weight * float(value[at]);
    }
    largest = above;
  }

  if (lane == 0) {
    largest_of[simdgroup] = largest;
    total_of[simdgroup] = total;
  }
  for (int i = 0; i < kValues; i++) sums_of[(simdgroup * kValues + i) * kLanes + lane] = sums[i];
  threadgroup_barrier(mem_flags::mem_threadgroup);

  float above = has_sinks ? sinks[head] : -INFINITY;
  for (int s = 0; s < kSimdgroups; s++) above = max(above, largest_of[s]);
  float all = has_sinks ? exp(sinks[head] - above) : 0.0f;
  for (int s = 0; s < kSimdgroups; s++) all += total_of[s] * exp(largest_of[s] - above);
  for (uint at = thread_id; at < a.value_dim; at += kSimdgroups * kLanes) {
    float sum = 0.0f;
    for (int s = 0; s < kSimdgroups; s++)
      sum += sums_of[s * kValues * kLanes + at] * exp(largest_of[s] - above);
    out[m * a.out_stride + head * a.value_dim + at] = sum / all;
  }
}

// 8 simdgroups of 1024 values would take all of a threadgroup's memory.
#define instantiate(name, T, kValues, kSimdgroups)                                      \
  template [[host_name(name)]] [[kernel]] decltype(attention<T, kValues, kSimdgroups>)  \
      attention<T, kValues, kSimdgroups>;
instantiate("attention_f16_128", half, 4, 8)
instantiate("attention_f16_256", half, 8, 8)
instantiate("attention_f16_640", half, 20, 4)
instantiate("attention_f16_1024", half, 32, 4)
instantiate("attention_f32_128", float, 4, 8)
instantiate("attention_f32_256", float, 8, 8)
instantiate("attention_f32_640", float, 20, 4)
instantiate("attention_f32_1024", float, 32, 4)
