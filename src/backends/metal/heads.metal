// What happens to the heads of a token before attention: norms of queries and keys, their rotation, and the append of
// keys and values to the cache.
//
// Work    a simdgroup has one head: of queries first, then of keys, then of values, if there are values. A lane has
//         every 32nd value, or pair of the rotation.
#include <metal_stdlib>

#include "backends/metal/arguments.h"

using namespace metal;
using namespace nibble;

constant bool has_q_norm [[function_constant(kHasNorm)]];
constant bool has_k_norm [[function_constant(kHasKNorm)]];
constant bool has_rope [[function_constant(kHasRope)]];
constant bool is_interleaved [[function_constant(kIsInterleaved)]];

template <typename T>
kernel void heads(
    constant HeadsArguments& a,
    device float* q,             // [M, heads, q.head_dim]
    device float* k,             // [M, kv_heads, k.head_dim]
    device const float* v,       // [M, kv_heads, k.head_dim]
    device const float* q_norm,  // [q.norm_width]
    device const float* k_norm,
    device const float* turns,   // [2, M, pairs]: cosines, sines
    device const int* pos,       // [M]
    device const int* sequence,  // [M]
    device T* k_cache,           // [sequences, num_rows, kv_heads, k.head_dim]
    device T* v_cache,
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint m = threadgroup_id.y;
  const ulong row = ulong(sequence[m]) * a.num_rows + ulong(uint(pos[m]) % a.num_rows);
  const bool is_q = threadgroup_id.x < a.num_heads;
  const bool is_k = !is_q && threadgroup_id.x < a.num_heads + a.num_kv_heads;
  const uint head = is_q   ? threadgroup_id.x
                    : is_k ? threadgroup_id.x - a.num_heads
                           : threadgroup_id.x - a.num_heads - a.num_kv_heads;
  const ulong cached = (row * a.num_kv_heads + head) * a.k.head_dim;
  if (!is_q && !is_k) {
    for (uint i = lane; i < a.k.head_dim; i += kLanes)
      v_cache[cached + i] = T(v[m * a.v_stride + head * a.k.head_dim + i]);
    return;
  }

  constant HeadArguments& h = is_q ? a.q : a.k;
  device float* x = (is_q ? q : k) + m * h.stride + head * h.head_dim;
  device const float* norm = is_q ? q_norm : k_norm;
  const bool has_norm = is_q ? has_q_norm : has_k_norm;
  if (has_norm) {
    float squares = 0.0f;
    for (uint i = lane; i < h.norm_width; i += kLanes) squares = fma(x[i], x[i], squares);
    const float factor = 1.0f / sqrt(simd_sum(squares) / float(h.norm_width) + h.eps);
    for (uint i = lane; i < h.norm_width; i += kLanes) x[i] = x[i] * factor * norm[i];
    simdgroup_barrier(mem_flags::mem_device);
  }
  if (has_rope) {
    for (uint pair = lane; pair < a.num_pairs; pair += kLanes) {
      const uint i = h.rope_first + (is_interleaved ? 2 * pair : pair);
      const uint j = is_interleaved ? i + 1 : i + a.num_pairs;
      const float cosine = turns[m * a.num_pairs + pair], sine = turns[(a.M + m) * a.num_pairs + pair];
      const float first = x[i], second = x[j];
      x[i] = first * cosine - second * sine;
      x[j] = second * cosine + first * sine;
    }
    simdgroup_barrier(mem_flags::mem_device);
  }
  if (is_k)
    for (uint i = lane; i < h.head_dim; i += kLanes) k_cache[cached + i] = T(x[i]);
}

template [[host_name("heads_f16")]] [[kernel]] decltype(heads<half>) heads<half>;
template [[host_name("heads_f32")]] [[kernel]] decltype(heads<float>) heads<float>;
