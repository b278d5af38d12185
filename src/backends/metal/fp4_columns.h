// Four columns beside each other of B [K/8, N] and its scales: what the kernels for one and for a few tokens share. MSL.
#pragma once

#include <metal_stdlib>

using namespace metal;

// The E2M1 codes k and k + 4 (k = 0 … 3) of a word, times 2^-14: a code's sign goes to bit 15 of a half, its exponent and
// mantissa to bits 11 … 9. Two at a time, since Apple's integer shifts are slow.
static inline float2 decode_pair(uint word, uint k) {
  const uint magnitude = k < 3 ? word << (9 - 4 * k) : word >> 3;
  const uint sign = word << (12 - 4 * k);
  return float2(as_type<half2>((magnitude & 0x0E000E00u) | (sign & 0x80008000u)));
}
constexpr constant float kDecodedScale = 16384.0f;

// Columns n … n + 3 of N; `whole`: they are all there, and aligned.
static inline uint4 load_codes(device const uint* row, uint n, uint N, bool whole) {
  if (whole) return *reinterpret_cast<device const uint4*>(row + n);
  return uint4(row[n], row[min(n + 1, N - 1)], row[min(n + 2, N - 1)], row[min(n + 3, N - 1)]);
}
static inline float4 load_scales(device const half* row, uint n, uint N, bool whole) {
  if (whole) return float4(*reinterpret_cast<device const half4*>(row + n));
  return float4(row[n], row[min(n + 1, N - 1)], row[min(n + 2, N - 1)], row[min(n + 3, N - 1)]);
}

// sums[t] += the products of k = first … last - 1, for rows t of A that are K halves apart, the last of them row num_rows - 1.
// first is a multiple of group_size.
template <uint rows>
static inline void add_products(thread float4 (&sums)[rows], device const half* A, device const uint* B,
                                device const half* scales, uint num_rows, uint N, uint K, uint group_size, uint first,
                                uint last, uint n) {
  const bool whole = n + 4 <= N && N % 4 == 0;
  for (uint k = first; k < last;) {
    const uint end = min(k + group_size, last);
    const float4 scale = load_scales(scales + k / group_size * N, n, N, whole) * kDecodedScale;
    float4 group[rows];
    for (uint t = 0; t < rows; ++t) group[t] = float4(0.0f);
    for (; k < end; k += 8) {
      const uint4 codes = load_codes(B + k / 8 * N, n, N, whole);
      for (uint i = 0; i < 4; ++i) {
        const float2 x = decode_pair(codes.x, i), y = decode_pair(codes.y, i);
        const float2 z = decode_pair(codes.z, i), w = decode_pair(codes.w, i);
        for (uint t = 0; t < rows; ++t) {
          device const half* a = A + min(t, num_rows - 1) * K + k + i;
          group[t] += float(a[0]) * float4(x.x, y.x, z.x, w.x) + float(a[4]) * float4(x.y, y.y, z.y, w.y);
        }
      }
    }
    for (uint t = 0; t < rows; ++t) sums[t] += group[t] * scale;
  }
}
