// y = norm(x) * wᵀ + bias, or y += that: up to three matrices that read the same rows of x, one after the other in the
// grid. And the same for heads that have a matrix each.
//
// Cost    reads every row of w once for kTokenBlock tokens; x comes from the cache. Memory-bound for few tokens.
// Work    a simdgroup has kRows rows. The norm is one number a token: its sum of squares is taken along the way, and
//         the products are multiplied by it at the end, so that it costs no pass and no barrier of its own.
#include <metal_stdlib>

#include "backends/metal/rows.h"

using namespace metal;
using namespace nibble;

constant bool has_norm [[function_constant(kHasNorm)]];
constant bool stores_norm [[function_constant(kStoresNorm)]];
constant bool has_bias [[function_constant(kHasBias)]];
constant bool accumulates [[function_constant(kAccumulates)]];

template <typename Format, int T>
kernel void linear(
    constant LinearArguments& a,
    device const float* x,       // [M, K]
    device const float* norm,    // [K]
    device float* normed,        // [M, K]
    device const uchar* w0,
    device const uchar* w1,
    device const uchar* w2,
    device const float* bias0,   // [N]
    device const float* bias1,
    device const float* bias2,
    device float* out0,          // [M, N]
    device float* out1,
    device float* out2,
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint2 num_threadgroups [[threadgroups_per_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint part = threadgroup_id.x >= a.first_threadgroup[2] ? 2 : threadgroup_id.x >= a.first_threadgroup[1] ? 1 : 0;
  const Matrix w = matrix_of(part == 0 ? w0 : part == 1 ? w1 : w2, a.w[part], 0);
  device const float* bias = part == 0 ? bias0 : part == 1 ? bias1 : bias2;
  device float* out = part == 0 ? out0 : part == 1 ? out1 : out2;
  const uint n = ((threadgroup_id.x - a.first_threadgroup[part]) * kRowSimdgroups + simdgroup) * kRows;
  const uint m = threadgroup_id.y * T;

  float4 sums[T];
  float squares[T];
  for (int t = 0; t < T; t++) {
    sums[t] = float4(0.0f);
    squares[t] = 0.0f;
  }
  for (uint chunk = lane; chunk < a.w[part].num_chunks; chunk += kLanes) {
    Activations rows[T];
    for (int t = 0; t < T; t++)
      rows[t] = load_activations(x + min(m + t, a.M - 1) * a.x_stride, chunk * kChunk, a.K, x_is_aligned);
    if (has_norm) {
      const Activations weight = load_activations(norm, chunk * kChunk, a.K, true);
      for (int t = 0; t < T; t++) {
        squares[t] += sum_of_squares(rows[t]);
        for (uint i = 0; i < 8; i++) rows[t].v[i] *= weight.v[i];
      }
    }
    add_chunk<Format, T>(w, n, chunk, rows, sums);
  }

  for (int t = 0; t < T && m + t < a.M; t++) {
    float factor = 1.0f;
    if (has_norm) {
      factor = 1.0f / sqrt(simd_sum(squares[t]) / float(a.K) + a.norm_eps);
      if (stores_norm) {
        // Each simdgroup of the grid has some columns.
        const uint first = (threadgroup_id.x * kRowSimdgroups + simdgroup) * kLanes + lane;
        for (uint k = first; k < a.K; k += num_threadgroups.x * kRowSimdgroups * kLanes)
          normed[(m + t) * a.normed_stride + k] = x[(m + t) * a.x_stride + k] * norm[k] * factor;
      }
    }
    const float4 y = simd_sum(sums[t]);
    if (lane < kRows && n + lane < w.N) {
      device float& to = out[(m + t) * a.out_stride[part] + n + lane];
      float value = y[lane] * w.factors[n + lane] * factor;
      if (has_bias) value += bias[n + lane];
      to = accumulates ? to + value : value;
    }
  }
}

template <typename Format, int T>
kernel void head_linear(
    constant HeadLinearArguments& a,
    device const float* x,  // [M, heads, what is not read and K]
    device const uchar* w_bytes,
    device float* out,      // [M, heads, N]
    uint3 threadgroup_id [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint head = threadgroup_id.z;
  const Matrix w = matrix_of(w_bytes, a.w, head);
  const uint n = (threadgroup_id.x * kRowSimdgroups + simdgroup) * kRows, m = threadgroup_id.y * T;
  device const float* head_x = x + head * a.x_head_stride;
  float4 sums[T];
  for (int t = 0; t < T; t++) sums[t] = float4(0.0f);
  for (uint chunk = lane; chunk < a.w.num_chunks; chunk += kLanes) {
    Activations rows[T];
    for (int t = 0; t < T; t++)
      rows[t] = load_activations(head_x + min(m + t, a.M - 1) * a.x_stride, chunk * kChunk, a.K, x_is_aligned);
    add_chunk<Format, T>(w, n, chunk, rows, sums);
  }
  for (int t = 0; t < T && m + t < a.M; t++) {
    const float4 y = simd_sum(sums[t]);
    if (lane < kRows && n + lane < w.N)
      out[(m + t) * a.out_stride + head * w.N + n + lane] = y[lane] * w.factors[n + lane];
  }
}

#define instantiate_linear_1(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(linear<Format, 1>) linear<Format, 1>;
#define instantiate_linear_4(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(linear<Format, kTokenBlock>) linear<Format, kTokenBlock>;
#define instantiate_heads_1(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(head_linear<Format, 1>) head_linear<Format, 1>;
#define instantiate_heads_4(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(head_linear<Format, kTokenBlock>) head_linear<Format, kTokenBlock>;
NIBBLE_EACH_FORMAT(instantiate_linear_1, "linear")
NIBBLE_EACH_FORMAT(instantiate_linear_4, "linear_block")
NIBBLE_EACH_FORMAT(instantiate_heads_1, "head_linear")
NIBBLE_EACH_FORMAT(instantiate_heads_4, "head_linear_block")
