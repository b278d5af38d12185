// What expert_pairs.metal does, for many tokens: the pieces are tiles of 64 pairs (tiles.h). So an expert is read once for each
// 64 of its tokens.
#include <metal_stdlib>

#include "backends/metal/expert_activation.h"
#include "backends/metal/tiles.h"

using namespace metal;
using namespace nibble;

constant bool has_down_bias [[function_constant(kHasBias)]];

// Grid: tiles of N, most_pieces.
template <typename Format>
kernel void gate_up_tiles(
    constant GateUpArguments& a,
    device const float* x,         // [M, K]
    device const uchar* gate_bytes,
    device const uchar* up_bytes,
    device const float* gate_bias, // [E, N]
    device const float* up_bias,
    device const uint* pairs,      // [M * top_k]
    device const uint4* pieces,    // [most_pieces]
    device float* out,             // [M, top_k, N]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float4 aligned_memory[kTileFloats / 4];
  threadgroup float* memory = reinterpret_cast<threadgroup float*>(aligned_memory);
  const uint e = pieces[threadgroup_id.y].x, first = pieces[threadgroup_id.y].y, count = pieces[threadgroup_id.y].z;
  if (count == 0) return;
  const Matrix gate = matrix_of(gate_bytes, a.gate, e), up = matrix_of(up_bytes, a.up, e);
  const uint N = gate.N, first_n = threadgroup_id.x * kTile;
  device const float* row = x + pairs[first + min(thread_id % kTile, count - 1)] / a.top_k * a.x_stride;

  float gates[kTileValues];
  if (!only_up) {
    multiply_tile<Format>(memory, gate, a.gate.num_chunks, first_n, row, x, false, a.K, thread_id, simdgroup);
    for (uint v = 0; v < kTileValues; v++) gates[v] = memory[v * kTileThreads + thread_id];
  }
  if (!only_gate)
    multiply_tile<Format>(memory, up, a.up.num_chunks, first_n, row, x, false, a.K, thread_id, simdgroup);
  for (uint v = 0; v < kTileValues; v++) {
    const uint i = v * kTileThreads + thread_id, n = first_n + i % kTile;
    if (i / kTile >= count || n >= N) continue;
    const uint pair = pairs[first + i / kTile];
    store_gate_up(out[pair / a.top_k * a.out_stride + pair % a.top_k * N + n], gates[v] * gate.factors[n],
                  memory[i] * up.factors[n], gate_bias, up_bias, e * N + n, a);
  }
}

template <typename Format>
kernel void moe_down_tiles(
    constant MoeDownArguments& a,
    device const float* x,      // [M, top_k, K]
    device const uchar* w_bytes,
    device const float* bias,   // [E, N]
    device const uint* pairs,   // [M * top_k]
    device const uint4* pieces, // [most_pieces]
    device float* products,     // [M * top_k, N]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float4 aligned_memory[kTileFloats / 4];
  threadgroup float* memory = reinterpret_cast<threadgroup float*>(aligned_memory);
  const uint e = pieces[threadgroup_id.y].x, first = pieces[threadgroup_id.y].y, count = pieces[threadgroup_id.y].z;
  if (count == 0) return;
  const Matrix w = matrix_of(w_bytes, a.w, e);
  const uint first_n = threadgroup_id.x * kTile, own = pairs[first + min(thread_id % kTile, count - 1)];
  device const float* row = x + own / a.top_k * a.x_stride + own % a.top_k * a.K;
  multiply_tile<Format>(memory, w, a.w.num_chunks, first_n, row, x, false, a.K, thread_id, simdgroup);
  for (uint i = thread_id; i < kTile * kTile; i += kTileThreads) {
    const uint n = first_n + i % kTile;
    if (i / kTile >= count || n >= w.N) continue;
    float y = memory[i] * w.factors[n];
    if (has_down_bias) y += bias[e * w.N + n];
    products[ulong(pairs[first + i / kTile]) * w.N + n] = y;
  }
}

#define instantiate_gate_up(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(gate_up_tiles<Format>) gate_up_tiles<Format>;
#define instantiate_moe_down(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(moe_down_tiles<Format>) moe_down_tiles<Format>;
NIBBLE_EACH_FORMAT(instantiate_gate_up, "gate_up_tiles")
NIBBLE_EACH_FORMAT(instantiate_moe_down, "moe_down_tiles")
