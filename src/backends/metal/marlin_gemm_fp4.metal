// C = A * B for many tokens: FP4 weights, half A, half or float C; 64×64 tiles of C on simdgroup matrices.
//
// Cost    a tile decodes 64 columns of B once for its 64 rows of A, and computes all 64 whatever M is.
// Work    128 threads a threadgroup, one tile. In steps of 32 k the threads put A and the decoded, scaled B into threadgroup
//         memory as floats (a scale times a code is no half: products stay exact); each of the 4 simdgroups then has a quarter
//         of the tile, 4×4 matrices.
// Needs   K % 8 == 0, group_size % 8 == 0. Any M and N. Grid: tiles of N, tiles of M.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>

#include "backends/metal/fp4_columns.h"
#include "backends/metal/gemm_fp4_arguments.h"

constexpr constant uint kTile = 64, kStep = 32, kThreads = 128;
constexpr constant uint kStrideA = kStep + 4, kStrideB = kTile + 4;  // 4 more, so that rows begin in different banks

// to[r, k] = A[row + r, k0 + k]; zero beyond M and K.
static inline void load_a(threadgroup float* to, device const half* A, constant GemmFp4Arguments& g, uint row, uint k0,
                          uint thread_id) {
  for (uint i = thread_id; i < kTile * kStep; i += kThreads) {
    const uint r = i / kStep, k = i % kStep;
    const bool inside = row + r < g.M && k0 + k < g.K;
    to[r * kStrideA + k] = inside ? float(A[(row + r) * g.K + k0 + k]) : 0.0f;
  }
}

// to[k, c] = B[k0 + k, column + c]; zero beyond K and N. A thread decodes a word, 8 k, at a time.
static inline void load_b(threadgroup float* to, device const uint* B, device const half* scales,
                          constant GemmFp4Arguments& g, uint column, uint k0, uint thread_id) {
  for (uint i = thread_id; i < kTile * kStep / 8; i += kThreads) {
    const uint p = i / kTile, c = i % kTile, k = k0 + p * 8, n = column + c;
    const bool inside = n < g.N && k < g.K;
    const uint word = inside ? B[k / 8 * g.N + n] : 0u;
    const float scale = inside ? float(scales[k / g.group_size * g.N + n]) * kE2m1Scale : 0.0f;
    float4 w[2];
    nibble::decode_e2m1(word, w);
    for (uint j = 0; j < 8; ++j) to[(p * 8 + kDecodedOrder[j]) * kStrideB + c] = w[j / 4][j % 4] * scale;
  }
}

template <typename T>
kernel void marlin_gemm_fp4(
    device const half* A [[buffer(0)]],       // [M, K]
    device const uint* B [[buffer(1)]],       // [K/8, N]
    device const half* scales [[buffer(2)]],  // [ceil(K/group_size), N]
    device T* C [[buffer(3)]],                // [M, N]
    constant GemmFp4Arguments& g [[buffer(4)]],
    uint2 tile_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float tiles[kTile * kStrideA + kStep * kStrideB];
  threadgroup float* a = tiles;
  threadgroup float* b = tiles + kTile * kStrideA;
  const uint row = tile_id.y * kTile, column = tile_id.x * kTile;
  const uint quarter_row = simdgroup / 2 * 32, quarter_column = simdgroup % 2 * 32;

  simdgroup_float8x8 sums[4][4];
  for (uint i = 0; i < 4; ++i)
    for (uint j = 0; j < 4; ++j) sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

  for (uint k0 = 0; k0 < g.K; k0 += kStep) {
    load_a(a, A, g, row, k0, thread_id);
    load_b(b, B, scales, g, column, k0, thread_id);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint k = 0; k < kStep; k += 8) {
      simdgroup_float8x8 left[4], right[4];
      for (uint i = 0; i < 4; ++i) simdgroup_load(left[i], a + (quarter_row + i * 8) * kStrideA + k, kStrideA);
      for (uint j = 0; j < 4; ++j) simdgroup_load(right[j], b + k * kStrideB + quarter_column + j * 8, kStrideB);
      for (uint i = 0; i < 4; ++i)
        for (uint j = 0; j < 4; ++j) simdgroup_multiply_accumulate(sums[i][j], left[i], right[j], sums[i][j]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  // The tile takes the place of a and b, then goes out as far as C reaches.
  for (uint i = 0; i < 4; ++i)
    for (uint j = 0; j < 4; ++j)
      simdgroup_store(sums[i][j], tiles + (quarter_row + i * 8) * kTile + quarter_column + j * 8, kTile);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = thread_id; i < kTile * kTile; i += kThreads) {
    const uint m = row + i / kTile, n = column + i % kTile;
    if (m < g.M && n < g.N) C[m * g.N + n] = T(tiles[i]);
  }
}

template [[host_name("marlin_gemm_fp4_half")]] [[kernel]] decltype(marlin_gemm_fp4<half>) marlin_gemm_fp4<half>;
template [[host_name("marlin_gemm_fp4_float")]] [[kernel]] decltype(marlin_gemm_fp4<float>) marlin_gemm_fp4<float>;
