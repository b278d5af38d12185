// Experts of several tokens: the pairs of a token and an expert are sorted by expert and cut into pieces, of kTokenBlock pairs
// here, of kTile in expert_tiles.metal. A piece reads its expert once, and what nobody chose is not read.
//
// Work    sort_pairs makes the list of pieces, of which there are never more than most_pieces; a threadgroup that has none of
//         them ends at once. Each pair's product of down is kept; sum_experts adds up those of a token, in the order of its
//         choice. So a token gets the bits that experts.metal gives it, whoever is beside it.
#include <metal_stdlib>

#include "backends/metal/expert_activation.h"
#include "backends/metal/rows.h"

using namespace metal;
using namespace nibble;

constant bool has_down_bias [[function_constant(kHasBias)]];

// One threadgroup.
kernel void sort_pairs(
    constant SortPairsArguments& a,
    device const float* experts,  // [M, top_k]
    device uint* used,            // [M, top_k]: which experts were read, for the host's count
    device uint* pairs,           // [M * top_k]: m * top_k + choice, sorted by expert, then by itself
    device uint4* pieces,         // [most_pieces]: expert, its first pair in `pairs`, how many: 0 if there is none
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
    uint first = 0, num_pieces = 0;
    for (uint e = 0; e < a.num_experts; e++) {
      const uint count = num_before[e];
      num_before[e] = first;
      for (uint i = 0; i < count; i += a.piece)
        pieces[num_pieces++] = uint4(e, first + i, min(a.piece, count - i), 0);
      first += count;
    }
    for (; num_pieces < a.most_pieces; num_pieces++) pieces[num_pieces] = uint4(0u);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint e = thread_id; e < a.num_experts; e += kSortThreads) {
    uint at = num_before[e];
    for (uint i = 0; i < num_pairs; i++)
      if (used[i] == e) pairs[at++] = i;
  }
}

// Grid: threadgroups of rows, most_pieces.
template <typename Format>
kernel void gate_up_pairs(
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
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint e = pieces[threadgroup_id.y].x, first = pieces[threadgroup_id.y].y, count = pieces[threadgroup_id.y].z;
  if (count == 0) return;
  const Matrix gate = matrix_of(gate_bytes, a.gate, e), up = matrix_of(up_bytes, a.up, e);
  const uint N = gate.N, n = (threadgroup_id.x * kRowSimdgroups + simdgroup) * kRows;
  float4 gate_sums[kTokenBlock], up_sums[kTokenBlock];
  device const float* x_of[kTokenBlock];
  for (uint t = 0; t < kTokenBlock; t++) {
    gate_sums[t] = up_sums[t] = float4(0.0f);
    x_of[t] = x + pairs[first + min(t, count - 1)] / a.top_k * a.x_stride;
  }
  for (uint chunk = lane; chunk < a.gate.num_chunks; chunk += kLanes) {
    Activations rows[kTokenBlock];
    for (uint t = 0; t < kTokenBlock; t++)
      if (t < count) rows[t] = load_activations(x_of[t], chunk * kChunk, a.K, x_is_aligned);
    if (!only_up) add_chunk<Format, kTokenBlock>(gate, n, chunk, rows, gate_sums, count);
    if (!only_gate) add_chunk<Format, kTokenBlock>(up, n, chunk, rows, up_sums, count);
  }
  for (uint t = 0; t < count; t++) {
    const float4 gates = simd_sum(gate_sums[t]), ups = simd_sum(up_sums[t]);
    if (lane >= kRows || n + lane >= N) continue;
    const uint pair = pairs[first + t];
    store_gate_up(out[pair / a.top_k * a.out_stride + pair % a.top_k * N + n + lane],
                  gates[lane] * gate.factors[n + lane], ups[lane] * up.factors[n + lane], gate_bias, up_bias,
                  e * N + n + lane, a);
  }
}

template <typename Format>
kernel void moe_down_pairs(
    constant MoeDownArguments& a,
    device const float* x,      // [M, top_k, K]
    device const uchar* w_bytes,
    device const float* bias,   // [E, N]
    device const uint* pairs,   // [M * top_k]
    device const uint4* pieces, // [most_pieces]
    device float* products,     // [M * top_k, N]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint e = pieces[threadgroup_id.y].x, first = pieces[threadgroup_id.y].y, count = pieces[threadgroup_id.y].z;
  if (count == 0) return;
  const Matrix w = matrix_of(w_bytes, a.w, e);
  const uint n = (threadgroup_id.x * kRowSimdgroups + simdgroup) * kRows;
  float4 sums[kTokenBlock];
  device const float* x_of[kTokenBlock];
  for (uint t = 0; t < kTokenBlock; t++) {
    sums[t] = float4(0.0f);
    const uint pair = pairs[first + min(t, count - 1)];
    x_of[t] = x + pair / a.top_k * a.x_stride + pair % a.top_k * a.K;
  }
  for (uint chunk = lane; chunk < a.w.num_chunks; chunk += kLanes) {
    Activations rows[kTokenBlock];
    for (uint t = 0; t < kTokenBlock; t++)
      if (t < count) rows[t] = load_activations(x_of[t], chunk * kChunk, a.K, x_is_aligned);
    add_chunk<Format, kTokenBlock>(w, n, chunk, rows, sums, count);
  }
  for (uint t = 0; t < count; t++) {
    const float4 y = simd_sum(sums[t]);
    if (lane >= kRows || n + lane >= w.N) continue;
    float value = y[lane] * w.factors[n + lane];
    if (has_down_bias) value += bias[e * w.N + n + lane];
    products[ulong(pairs[first + t]) * w.N + n + lane] = value;
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
  template [[host_name(name)]] [[kernel]] decltype(gate_up_pairs<Format>) gate_up_pairs<Format>;
#define instantiate_moe_down(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(moe_down_pairs<Format>) moe_down_pairs<Format>;
NIBBLE_EACH_FORMAT(instantiate_gate_up, "gate_up_pairs")
NIBBLE_EACH_FORMAT(instantiate_moe_down, "moe_down_pairs")
