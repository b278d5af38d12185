// For shaders: the products of 64 tokens with 64 rows of a packed matrix, a tile, on simdgroup matrices.
//
// Cost    decodes the rows once for all tokens of the tile, and computes all 64 whatever their number is.
// Work    128 threads. In steps of a chunk, 32 k, half of the threads decode a row of w each, the others load a token's
//         activations each, both as floats into threadgroup memory; each of the 4 simdgroups then has a quarter of the
//         tile, 4×4 matrices.
// Sums    float32, in steps of 8 k in their order; within those as the device does it. A token's do not depend on the
//         others of its tile, but are not those of rows.h to the last bit.
#pragma once

#include <metal_simdgroup_matrix>

#include "backends/metal/rows.h"

namespace nibble {

constexpr constant uint kTileStrideX = kChunk + 4, kTileStrideW = kTile + 4;  // 4 more: rows begin in different banks
constexpr constant uint kTileFloats = kTile * kTileStrideX + kChunk * kTileStrideW;  // which is more than kTile²
constexpr constant uint kTileValues = kTile * kTile / kTileThreads;                  // of a thread, at the end

// memory[i * kTile + j], aligned to 16 bytes, = x[i] · w[n + j], without the row's factor; a row past the end is the last one again. Thread
// kTile + i gives x[i], and its row's sum of squares is returned to it; others give what they like. All threads come here,
// and nobody reads `memory` any more.
template <typename Format>
static inline float multiply_tile(threadgroup float* memory, thread const Matrix& w, uint num_chunks, uint n,
                                  device const float* x, device const float* norm, bool has_norm, uint K,
                                  uint thread_id, uint simdgroup) {
  threadgroup float* tokens = memory;
  threadgroup float* rows = memory + kTile * kTileStrideX;
  const uint quarter_token = simdgroup / 2 * 32, quarter_row = simdgroup % 2 * 32;
  simdgroup_float8x8 sums[4][4];
  for (uint i = 0; i < 4; i++)
    for (uint j = 0; j < 4; j++) sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

  float squares = 0.0f;
  for (uint chunk = 0; chunk < num_chunks; chunk++) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_id < kTile) {
      const ulong row = min(n + thread_id, w.N - 1);
      const Weights weights = Format::load(w.codes + row * w.code_row_bytes, w.scales + row * w.scale_row_bytes, chunk);
      for (uint k = 0; k < kChunk; k++)
        rows[k * kTileStrideW + thread_id] = weights.v[k / 4][k % 4] * weights.scale[k / 16];
    } else {
      Activations row = load_activations(x, chunk * kChunk, K, x_is_aligned);
      if (has_norm) {
        const Activations weight = load_activations(norm, chunk * kChunk, K, true);
        squares += sum_of_squares(row);
        for (uint i = 0; i < 8; i++) row.v[i] *= weight.v[i];
      }
      threadgroup float4* to = reinterpret_cast<threadgroup float4*>(tokens + (thread_id - kTile) * kTileStrideX);
      for (uint i = 0; i < 8; i++) to[i] = row.v[i];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint k = 0; k < kChunk; k += 8) {
      simdgroup_float8x8 left[4], right[4];
      for (uint i = 0; i < 4; i++)
        simdgroup_load(left[i], tokens + (quarter_token + i * 8) * kTileStrideX + k, kTileStrideX);
      for (uint j = 0; j < 4; j++)
        simdgroup_load(right[j], rows + k * kTileStrideW + quarter_row + j * 8, kTileStrideW);
      for (uint i = 0; i < 4; i++)
        for (uint j = 0; j < 4; j++) simdgroup_multiply_accumulate(sums[i][j], left[i], right[j], sums[i][j]);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = 0; i < 4; i++)
    for (uint j = 0; j < 4; j++)
      simdgroup_store(sums[i][j], memory + (quarter_token + i * 8) * kTile + quarter_row + j * 8, kTile);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return squares;
}

}  // namespace nibble
