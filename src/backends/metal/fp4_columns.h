// For shaders: four columns beside each other of B [K/8, N] and its scales, as dispatch_gemm_fp4 has them: what the kernels for
// one and for a few tokens share.
#pragma once

#include <metal_stdlib>

#include "backends/metal/formats.h"

using namespace metal;

constexpr constant float kE2m1Scale = 16384.0f;  // what decode_e2m1 leaves out

// The order in which decode_e2m1 gives the k of a word; order_as_decoded gives 8 halves in the same.
constexpr constant uint kDecodedOrder[8] = {0, 4, 1, 5, 2, 6, 3, 7};
static inline void order_as_decoded(device const half* from, thread float4* out) {
  const half4 low = reinterpret_cast<device const half4*>(from)[0],
              high = reinterpret_cast<device const half4*>(from)[1];
  out[0] = float4(low.x, high.x, low.y, high.y);
  out[1] = float4(low.z, high.z, low.w, high.w);
}

// Columns n … n + 3 of N; `whole`: they are all there, and aligned.
static inline uint4 load_codes(device const uint* row, uint n, uint N, bool whole) {
  if (whole) return *reinterpret_cast<device const uint4*>(row + n);
  return uint4(row[n], row[min(n + 1, N - 1)], row[min(n + 2, N - 1)], row[min(n + 3, N - 1)]);
}
static inline float4 load_scales(device const half* row, uint n, uint N, bool whole) {
  if (whole) return float4(*reinterpret_cast<device const half4*>(row + n));
  return float4(row[n], row[min(n + 1, N - 1)], row[min(n + 2, N - 1)], row[min(n + 3, N - 1)]);
}

// sums[t] += the products of k = first … last - 1, for row t of A; rows from num_rows on count as the last one. first and last
// are multiples of 8, first of group_size.
template <uint rows>
static inline void add_products(thread float4 (&sums)[rows], device const half* A, device const uint* B,
                                device const half* scales, uint num_rows, uint N, uint K, uint group_size, uint first,
                                uint last, uint n) {
  const bool whole = n + 4 <= N && N % 4 == 0;
  for (uint k = first; k < last;) {
    const uint end = min(k + group_size, last);
    const float4 scale = load_scales(scales + k / group_size * N, n, N, whole) * kE2m1Scale;
    float4 group[rows];
    for (uint t = 0; t < rows; ++t) group[t] = float4(0.0f);
    for (; k < end; k += 8) {
      const uint4 codes = load_codes(B + k / 8 * N, n, N, whole);
      float4 w[4][2];
      for (uint j = 0; j < 4; ++j) nibble::decode_e2m1(codes[j], w[j]);
      for (uint t = 0; t < rows; ++t) {
        float4 a[2];
        order_as_decoded(A + min(t, num_rows - 1) * K + k, a);
        for (uint j = 0; j < 4; ++j) group[t][j] += dot(a[0], w[j][0]) + dot(a[1], w[j][1]);
      }
    }
    for (uint t = 0; t < rows; ++t) sums[t] += group[t] * scale;
  }
}
