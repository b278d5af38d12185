// For shaders: the products of a few rows of a packed matrix with a row of activations, by one simdgroup.
//
// Work    a lane takes every 32nd chunk of 32 weights, in each of kRows rows: 16 bytes of a 4-bit format, so that a
//         simdgroup reads 512 contiguous bytes of a row. Activations are read once for all the rows.
// Sums    float32, in an order that depends on K alone: neither on the other rows nor on the other tokens.
#pragma once

#include "backends/metal/formats.h"

namespace nibble {

constant bool x_is_aligned [[function_constant(kAligned)]];

// 32 activations.
struct Activations {
  float4 v[8];
};

// x[first … first + 31], zeros from K on.
static inline Activations load_activations(device const float* x, uint first, uint K, bool is_aligned) {
  Activations a;
  if (first + kChunk > K) {
    for (uint i = 0; i < 8; i++)
      for (uint j = 0; j < 4; j++) {
        const uint k = first + 4 * i + j;
        a.v[i][j] = k < K ? x[k] : 0.0f;
      }
  } else if (is_aligned) {
    for (uint i = 0; i < 8; i++) a.v[i] = reinterpret_cast<device const float4*>(x + first)[i];
  } else {
    device const float* at = x + first;
    for (uint i = 0; i < 8; i++) a.v[i] = float4(at[4 * i], at[4 * i + 1], at[4 * i + 2], at[4 * i + 3]);
  }
  return a;
}

static inline float product(thread const Weights& w, thread const Activations& x) {
  float4 low = w.v[0] * x.v[0], high = w.v[4] * x.v[4];
  for (uint i = 1; i < 4; i++) {
    low = fma(w.v[i], x.v[i], low);
    high = fma(w.v[4 + i], x.v[4 + i], high);
  }
  const float4 sums = fma(low, float4(w.scale.x), high * w.scale.y);
  return (sums.x + sums.y) + (sums.z + sums.w);
}

static inline float sum_of_squares(thread const Activations& x) {
  float4 sums = x.v[0] * x.v[0];
  for (uint i = 1; i < 8; i++) sums = fma(x.v[i], x.v[i], sums);
  return (sums.x + sums.y) + (sums.z + sums.w);
}

// One expert of a packed matrix.
struct Matrix {
  device const uchar* codes;
  device const uchar* scales;
  device const float* factors;
  uint N, code_row_bytes, scale_row_bytes;
};

static inline Matrix matrix_of(device const uchar* w, constant PackedMatrixArguments& a, uint e) {
  const ulong first = ulong(e) * a.N;
  Matrix m;
  m.codes = w + first * a.code_row_bytes;
  m.scales = w + a.scales_at + first * a.scale_row_bytes;
  m.factors = reinterpret_cast<device const float*>(w + a.factors_at) + first;
  m.N = a.N;
  m.code_row_bytes = a.code_row_bytes;
  m.scale_row_bytes = a.scale_row_bytes;
  return m;
}

// The chunk's part of the products with rows n … n + kRows - 1, for `count` of T tokens. A row past the end is the last one
// again.
template <typename Format, int T>
static inline void add_chunk(thread const Matrix& m, uint n, uint chunk, thread const Activations* x,
                             thread float4* sums, uint count = T) {
  for (uint r = 0; r < kRows; r++) {
    const ulong row = min(n + r, m.N - 1);
    const Weights w = Format::load(m.codes + row * m.code_row_bytes, m.scales + row * m.scale_row_bytes, chunk);
    for (uint t = 0; t < T; t++)
      if (t < count) sums[t][r] += product(w, x[t]);
  }
}

}  // namespace nibble
