// What experts.metal does for gate, up and down, for many tokens: the pairs of a token and an expert are sorted by expert,
// and go through its matrices in tiles of 64 (tiles.h). So an expert is read once for each 64 of its tokens, and what
// nobody chose is not.
//
// Work    sort_pairs makes the list of tiles, of which there are never more than most_tiles; a threadgroup that has none
//         of them ends at once. Each pair's product of down is kept; sum_experts adds up those of a token, in the order
//         of its choice.
#include <metal_stdlib>

#include "backends/metal/expert_activation.h"
#include "backends/metal/tiles.h"

using namespace metal;
using namespace nibble;

constant bool only_gate [[function_constant(kOnlyGate)]];
constant bool only_up [[function_constant(kOnlyUp)]];
constant bool has_down_bias [[function_constant(kHasBias)]];

// One threadgroup.
kernel void sort_pairs(
    constant SortPairsArguments& a,
    device const float* experts,  // [M, top_k]
    device uint* used,            // [M, top_k]: which experts were read, for the host's count
    device uint* pairs,           // [M * top_k]: m * top_k + choice, sorted by expert, then by itself
    device uint4* tiles,          // [most_tiles]: expert, its first pair in `pairs`, how many: 0 if there is none
    uint thread_id [[thread_index_in_threadgroup]]) {
  threadgroup uint num_before[kMostExperts];
  const uint num_pairs = a.M * a.top_k;
  for (uint i = thread_id; i < num_pairs; i += kSortThreads)
    used[i] = uint(experts[i / a.top_k * a.experts_stride + i % a.top_k]);
  threadgroup_barrier(mem_flags::mem_device);
  for (uint e = thread_id; e < a.num_experts; e += kSortThreads) {
    uint count = 0;
    for (uint i = 0; i < num_pairs; i++) count += used[i] == e ? 1 : 0;
    num_before[e] = count;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (thread_id == 0) {
    uint first = 0, num_tiles = 0;
    for (uint e = 0; e < a.num_experts; e++) {
      const uint count = num_before[e];
      num_before[e] = first;
      for (uint i = 0; i < count; i += kTile) tiles[num_tiles++] = uint4(e, first + i, min(uint(kTile), count - i), 0);
      first += count;
    }
    for (; num_tiles < a.most_tiles; num_tiles++) tiles[num_tiles] = uint4(0u);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint e = thread_id; e < a.num_experts; e += kSortThreads) {
    uint at = num_before[e];
    for (uint i = 0; i < num_pairs; i++)
      if (used[i] == e) pairs[at++] = i;
  }
}

// Grid: tiles of N, most_tiles.
template <typename Format>
kernel void gate_up_tiles(
    constant GateUpArguments& a,
    device const float* x,         // [M, K]
    device const uchar* gate_bytes,
    device const uchar* up_bytes,
    device const float* gate_bias, // [E, N]
    device const float* up_bias,
    device const uint* pairs,      // [M * top_k]
    device const uint4* tiles,     // [most_tiles]
    device float* out,             // [M, top_k, N]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float4 aligned_memory[kTileFloats / 4];
  threadgroup float* memory = reinterpret_cast<threadgroup float*>(aligned_memory);
  const uint e = tiles[threadgroup_id.y].x, first = tiles[threadgroup_id.y].y, count = tiles[threadgroup_id.y].z;
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
    device float& to = out[pair / a.top_k * a.out_stride + pair % a.top_k * N + n];
    float g = only_up ? to : gates[v] * gate.factors[n];
    if (!only_up && a.has_gate_bias) g += gate_bias[e * N + n];
    if (only_gate) {
      to = g;
      continue;
    }
    float u = memory[i] * up.factors[n];
    if (a.has_up_bias) u += up_bias[e * N + n];
    to = activate(g, u, a);
  }
}

template <typename Format>
kernel void moe_down_tiles(
    constant MoeDownArguments& a,
    device const float* x,      // [M, top_k, K]
    device const uchar* w_bytes,
    device const float* bias,   // [E, N]
    device const uint* pairs,   // [M * top_k]
    device const uint4* tiles,  // [most_tiles]
    device float* products,     // [M * top_k, N]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float4 aligned_memory[kTileFloats / 4];
  threadgroup float* memory = reinterpret_cast<threadgroup float*>(aligned_memory);
  const uint e = tiles[threadgroup_id.y].x, first = tiles[threadgroup_id.y].y, count = tiles[threadgroup_id.y].z;
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

// A thread has one value of a token.
kernel void sum_experts(
    constant SumExpertsArguments& a,
    device const float* products,        // [M, top_k, N]
    device const float* expert_weights,  // [M, top_k]
    device float* out,                   // [M, N]
    uint2 place [[thread_position_in_grid]]) {
  const uint n = place.x, m = place.y;
  if (n >= a.N) return;
  float sum = 0.0f;
  for (uint choice = 0; choice < a.top_k; choice++)
    sum = fma(expert_weights[m * a.weights_stride + choice], products[(ulong(m) * a.top_k + choice) * a.N + n], sum);
  out[m * a.out_stride + n] += sum;
}

#define instantiate_gate_up(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(gate_up_tiles<Format>) gate_up_tiles<Format>;
#define instantiate_moe_down(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(moe_down_tiles<Format>) moe_down_tiles<Format>;
NIBBLE_EACH_FORMAT(instantiate_gate_up, "gate_up_tiles")
NIBBLE_EACH_FORMAT(instantiate_moe_down, "moe_down_tiles")
