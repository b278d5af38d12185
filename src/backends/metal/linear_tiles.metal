// What linear.metal does, for many tokens: tiles of 64 tokens by 64 rows (tiles.h). The same arguments and buffers.
#include <metal_stdlib>

#include "backends/metal/tiles.h"

using namespace metal;
using namespace nibble;

constant bool has_norm [[function_constant(kHasNorm)]];
constant bool stores_norm [[function_constant(kStoresNorm)]];
constant bool has_bias [[function_constant(kHasBias)]];
constant bool accumulates [[function_constant(kAccumulates)]];

template <typename Format>
kernel void linear_tiles(
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
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float4 aligned_memory[kTileFloats / 4];
  threadgroup float* memory = reinterpret_cast<threadgroup float*>(aligned_memory);
  threadgroup float factors[kTile];  // of the norm
  const uint part = threadgroup_id.x >= a.first_threadgroup[2] ? 2 : threadgroup_id.x >= a.first_threadgroup[1] ? 1 : 0;
  const Matrix w = matrix_of(part == 0 ? w0 : part == 1 ? w1 : w2, a.w[part], 0);
  device const float* bias = part == 0 ? bias0 : part == 1 ? bias1 : bias2;
  device float* out = part == 0 ? out0 : part == 1 ? out1 : out2;
  const uint first_n = (threadgroup_id.x - a.first_threadgroup[part]) * kTile, first_m = threadgroup_id.y * kTile;

  device const float* row = x + min(first_m + thread_id % kTile, a.M - 1) * a.x_stride;
  const float squares = multiply_tile<Format>(memory, w, a.w[part].num_chunks, first_n, row, norm, has_norm, a.K,
                                              thread_id, simdgroup);
  if (thread_id >= kTile)
    factors[thread_id - kTile] = has_norm ? 1.0f / sqrt(squares / float(a.K) + a.norm_eps) : 1.0f;
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (uint i = thread_id; i < kTile * kTile; i += kTileThreads) {
    const uint m = first_m + i / kTile, n = first_n + i % kTile;
    if (m >= a.M || n >= w.N) continue;
    device float& to = out[m * a.out_stride[part] + n];
    float value = memory[i] * w.factors[n] * factors[i / kTile];
    if (has_bias) value += bias[n];
    to = accumulates ? to + value : value;
  }
  if (!has_norm || !stores_norm) return;
  // Each threadgroup of a row of tiles has some columns.
  for (uint m = first_m; m < min(first_m + kTile, a.M); m++)
    for (uint k = threadgroup_id.x * kTileThreads + thread_id; k < a.K; k += num_threadgroups.x * kTileThreads)
      normed[m * a.normed_stride + k] = x[m * a.x_stride + k] * norm[k] * factors[m - first_m];
}

template <typename Format>
kernel void head_linear_tiles(
    constant HeadLinearArguments& a,
    device const float* x,  // [M, heads, what is not read and K]
    device const uchar* w_bytes,
    device float* out,      // [M, heads, N]
    uint3 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float4 aligned_memory[kTileFloats / 4];
  threadgroup float* memory = reinterpret_cast<threadgroup float*>(aligned_memory);
  const uint head = threadgroup_id.z, first_n = threadgroup_id.x * kTile, first_m = threadgroup_id.y * kTile;
  const Matrix w = matrix_of(w_bytes, a.w, head);
  device const float* row =
      x + min(first_m + thread_id % kTile, a.M - 1) * a.x_stride + head * a.x_head_stride;
  multiply_tile<Format>(memory, w, a.w.num_chunks, first_n, row, x, false, a.K, thread_id, simdgroup);
  for (uint i = thread_id; i < kTile * kTile; i += kTileThreads) {
    const uint m = first_m + i / kTile, n = first_n + i % kTile;
    if (m < a.M && n < w.N) out[m * a.out_stride + head * w.N + n] = memory[i] * w.factors[n];
  }
}

#define instantiate_linear(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(linear_tiles<Format>) linear_tiles<Format>;
#define instantiate_heads(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(head_linear_tiles<Format>) head_linear_tiles<Format>;
NIBBLE_EACH_FORMAT(instantiate_linear, "linear_tiles")
NIBBLE_EACH_FORMAT(instantiate_heads, "head_linear_tiles")
