// Gate and up of a token's experts with what stands between them and down; then down, weighted and summed. Without experts:
// gate, up and SwiGLU of a dense block, for any number of tokens. expert_pairs.metal is for the experts of several.
//
// Cost    reads each chosen expert's rows once, those of a dense block once for kTokenBlock tokens.
// Work    a simdgroup has kRows rows of gate and the same of up, or kRows of down in every chosen expert, summed in the
//         order of the token's choice.
#include <metal_stdlib>

#include "backends/metal/expert_activation.h"
#include "backends/metal/rows.h"

using namespace metal;
using namespace nibble;

constant bool has_norm [[function_constant(kHasNorm)]];
constant bool has_experts [[function_constant(kHasExperts)]];
constant bool has_down_bias [[function_constant(kHasBias)]];

template <typename Format, int T>  // T: tokens side by side, 1 of experts
kernel void gate_up(
    constant GateUpArguments& a,
    device const float* x,         // [M, K]
    device const float* norm,      // [K]
    device const uchar* gate_bytes,
    device const uchar* up_bytes,
    device const float* gate_bias, // [E, N]
    device const float* up_bias,
    device const float* experts,   // [top_k], of the only token
    device uint* used,             // [top_k]: which experts were read, for the host's count
    device float* out,             // [M, top_k, N]: of experts M is 1
    uint3 threadgroup_id [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint choice = threadgroup_id.y, m = threadgroup_id.z * T;
  const uint e = has_experts ? uint(experts[choice]) : 0;
  if (has_experts && threadgroup_id.x == 0 && simdgroup == 0 && lane == 0) used[choice] = e;
  const Matrix gate = matrix_of(gate_bytes, a.gate, e), up = matrix_of(up_bytes, a.up, e);
  const uint N = gate.N, n = (threadgroup_id.x * kRowSimdgroups + simdgroup) * kRows;

  float4 gate_sums[T], up_sums[T];
  float squares[T];
  for (int t = 0; t < T; t++) {
    gate_sums[t] = up_sums[t] = float4(0.0f);
    squares[t] = 0.0f;
  }
  for (uint chunk = lane; chunk < a.gate.num_chunks; chunk += kLanes) {
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
    if (!only_up) add_chunk<Format, T>(gate, n, chunk, rows, gate_sums);
    if (!only_gate) add_chunk<Format, T>(up, n, chunk, rows, up_sums);
  }

  for (int t = 0; t < T && m + t < a.M; t++) {
    const float4 gates = simd_sum(gate_sums[t]), ups = simd_sum(up_sums[t]);
    const float factor = has_norm ? 1.0f / sqrt(simd_sum(squares[t]) / float(a.K) + a.norm_eps) : 1.0f;
    if (lane >= kRows || n + lane >= N) continue;
    store_gate_up(out[(m + t) * a.out_stride + choice * N + n + lane], gates[lane] * gate.factors[n + lane] * factor,
                  ups[lane] * up.factors[n + lane] * factor, gate_bias, up_bias, e * N + n + lane, a);
  }
}

template <typename Format>
kernel void moe_down(
    constant MoeDownArguments& a,
    device const float* x,               // [top_k, K]
    device const uchar* w_bytes,
    device const float* bias,            // [E, N]
    device const float* experts,         // [top_k]
    device const float* expert_weights,  // [top_k]
    device uint* used,                   // [top_k]
    device float* out,                   // [N]
    uint threadgroup_id [[threadgroup_position_in_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  const uint N = a.w.N, n = (threadgroup_id * kRowSimdgroups + simdgroup) * kRows;
  float sum = 0.0f;  // of row n + lane
  for (uint choice = 0; choice < a.top_k; choice++) {
    const uint e = uint(experts[choice]);
    if (threadgroup_id == 0 && simdgroup == 0 && lane == 0) used[choice] = e;
    const Matrix w = matrix_of(w_bytes, a.w, e);
    float4 sums = float4(0.0f);
    for (uint chunk = lane; chunk < a.w.num_chunks; chunk += kLanes) {
      const Activations row = load_activations(x + choice * a.K, chunk * kChunk, a.K, x_is_aligned);
      add_chunk<Format, 1>(w, n, chunk, &row, &sums);
    }
    sums = simd_sum(sums);
    if (lane < kRows && n + lane < N) {
      float y = sums[lane] * w.factors[n + lane];
      if (has_down_bias) y += bias[e * N + n + lane];
      sum = fma(expert_weights[choice], y, sum);
    }
  }
  if (lane < kRows && n + lane < N) out[n + lane] += sum;
}

#define instantiate_gate_up(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(gate_up<Format, 1>) gate_up<Format, 1>;
#define instantiate_gate_up_block(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(gate_up<Format, kTokenBlock>) gate_up<Format, kTokenBlock>;
#define instantiate_moe_down(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(moe_down<Format>) moe_down<Format>;
NIBBLE_EACH_FORMAT(instantiate_gate_up, "gate_up")
NIBBLE_EACH_FORMAT(instantiate_gate_up_block, "gate_up_block")
NIBBLE_EACH_FORMAT(instantiate_moe_down, "moe_down")
