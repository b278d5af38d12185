// What happens to the heads of a token before attention: norms of queries and keys, their rotation, and the append of keys
// and values to the cache.
//
// Work    a simdgroup has one head: of queries first, then of keys, then of values. A lane has some pairs of the rotation;
//         where there is none, single values.
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
    device float* q,             // [M, heads, head_dim]
    device float* k,             // [M, kv_heads, head_dim]
    device const float* v,       // [M, kv_heads, head_dim]
    device const float* q_norm,  // [head_dim]
    device const float* k_norm,
    device const float* turns,   // [2, M, pairs]: cosines, sines
    device const int* pos,       // [M]
    device const int* sequence,  // [M]
    device T* k_cache,           // [sequences, max_len, kv_heads, head_dim]
    device T* v_cache,
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint m = threadgroup_id.y;
  const ulong row = ulong(sequence[m]) * a.max_len + ulong(pos[m]);
  const bool is_q = threadgroup_id.x < a.num_heads;
  const bool is_k = !is_q && threadgroup_id.x < a.num_heads + a.num_kv_heads;
  const uint head = is_q   ? threadgroup_id.x
                    : is_k ? threadgroup_id.x - a.num_heads
                           : threadgroup_id.x - a.num_heads - a.num_kv_heads;
  const ulong cached = (row * a.num_kv_heads + head) * a.head_dim;
  if (!is_q && !is_k) {
    for (uint i = lane; i < a.head_dim; i += kLanes)
      v_cache[cached + i] = T(v[m * a.v_stride + head * a.head_dim + i]);
    return;
  }

  device float* x = is_q ? q + m * a.q_stride + head * a.head_dim : k + m * a.k_stride + head * a.head_dim;
  device const float* norm = is_q ? q_norm : k_norm;
  const bool has_norm = is_q ? has_q_norm : has_k_norm;
  float factor = 1.0f;
  if (has_norm) {
    float squares = 0.0f;
    for (uint i = lane; i < a.head_dim; i += kLanes) squares = fma(x[i], x[i], squares);
    factor = 1.0f / sqrt(simd_sum(squares) / float(a.head_dim) + (is_q ? a.q_eps : a.k_eps));
  }
  const uint num_pairs = has_rope ? a.num_pairs : 0;
  for (uint pair = lane; pair < num_pairs; pair += kLanes) {
    const uint i = a.first + (is_interleaved ? 2 * pair : pair);
    const uint j = is_interleaved ? i + 1 : i + num_pairs;
    const float cosine = turns[m * num_pairs + pair], sine = turns[(a.M + m) * num_pairs + pair];
    const float f = has_norm ? x[i] * factor * norm[i] : x[i], s = has_norm ? x[j] * factor * norm[j] : x[j];
    x[i] = f * cosine - s * sine;
    x[j] = s * cosine + f * sine;
    if (is_q) continue;
    k_cache[cached + i] = T(x[i]);
    k_cache[cached + j] = T(x[j]);
  }
  for (uint i = lane; i < a.head_dim; i += kLanes) {
    if (i >= a.first && i < a.first + 2 * num_pairs) continue;
    if (has_norm) x[i] = x[i] * factor * norm[i];
    if (!is_q) k_cache[cached + i] = T(x[i]);
  }
}

template [[host_name("heads_f16")]] [[kernel]] decltype(heads<half>) heads<half>;
template [[host_name("heads_f32")]] [[kernel]] decltype(heads<float>) heads<float>;
