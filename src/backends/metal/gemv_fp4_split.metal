// The products of 1, 2, 4 or 8 tokens with B, cut along K: partials[s, m, n] = sum over the k of split s of A[m, k] * B[k, n].
// sum_splits adds them up, in the order of splits whatever order they ran in.
//
// Cost    reads B once for each 8 tokens, and 8 bytes of partials for each column, token and split: split_k of at least 128
//         keeps the latter below an eighth of the former for one token.
// Work    128 threads a threadgroup: 512 columns (4 a thread) of one split, for `rows` tokens. Grid: columns, splits, tokens.
// Needs   what decode_gemv_fp4_wide needs; split_k % group_size == 0.
#include "backends/metal/fp4_columns.h"
#include "backends/metal/gemm_fp4_arguments.h"

template <uint rows>
kernel void gemv_fp4_split(
    device const half* A [[buffer(0)]],       // [M, K]
    device const uint* B [[buffer(1)]],       // [K/8, N]
    device const half* scales [[buffer(2)]],  // [ceil(K/group_size), N]
    device float* partials [[buffer(3)]],     // [num_splits, M, N]
    constant GemmFp4Arguments& g [[buffer(4)]],
    uint3 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]]) {
  const uint n = threadgroup_id.x * 512 + thread_id * 4;
  if (n >= g.N) return;
  const uint m = threadgroup_id.z * rows;
  const uint num_rows = min(rows, g.M - m);
  const uint first = threadgroup_id.y * g.split_k;
  float4 sums[rows];
  for (uint t = 0; t < rows; ++t) sums[t] = float4(0.0f);
  add_products<rows>(sums, A + m * g.K, B, scales, num_rows, g.N, g.K, g.group_size, first, min(first + g.split_k, g.K), n);
  for (uint t = 0; t < num_rows; ++t) {
    device float* out = partials + (threadgroup_id.y * g.M + m + t) * g.N + n;
    for (uint j = 0; j < 4 && n + j < g.N; ++j) out[j] = sums[t][j];
  }
}

template [[host_name("gemv_fp4_split_1")]] [[kernel]] decltype(gemv_fp4_split<1>) gemv_fp4_split<1>;
template [[host_name("gemv_fp4_split_2")]] [[kernel]] decltype(gemv_fp4_split<2>) gemv_fp4_split<2>;
template [[host_name("gemv_fp4_split_4")]] [[kernel]] decltype(gemv_fp4_split<4>) gemv_fp4_split<4>;
template [[host_name("gemv_fp4_split_8")]] [[kernel]] decltype(gemv_fp4_split<8>) gemv_fp4_split<8>;

// C[m, n] = sum over s of partials[s, m, n]; a thread has one element.
template <typename T>
kernel void sum_splits(
    device const float* partials [[buffer(0)]],  // [num_splits, M, N]
    device T* C [[buffer(1)]],                   // [M, N]
    constant GemmFp4Arguments& g [[buffer(2)]],
    uint i [[thread_position_in_grid]]) {
  if (i >= g.M * g.N) return;
  float sum = 0.0f;
  for (uint s = 0; s < g.num_splits; ++s) sum += partials[s * g.M * g.N + i];
  C[i] = T(sum);
}

template [[host_name("sum_splits_half")]] [[kernel]] decltype(sum_splits<half>) sum_splits<half>;
template [[host_name("sum_splits_float")]] [[kernel]] decltype(sum_splits<float>) sum_splits<float>;
