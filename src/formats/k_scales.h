// The scales of Q4_K and Q5_K (block_q4_K and block_q5_K in ggml-common.h, get_scale_min_k4 in ggml-quants.c): 256
// weights share two halves d and d_min and, for each 32 of them, a scale and a minimum of 6 bits.
//   value = d * scale * code - d_min * minimum
// The 16 bytes: d, d_min, then 12 bytes q. Scale j of the first four is the low 6 bits of q[j], minimum j those of
// q[4 + j]; the last four have their low 4 bits in the two halves of q[8 + j], their high 2 bits on top of the first
// four. Products of the codes are exact in float32 (11 + 6 + 5 bits); the difference is rounded once.
#pragma once

#include "formats/f16.h"
#include "formats/format.h"

namespace nibble {

inline constexpr int kKScaleBytes = 16;

// What the 32 weights of part j, 0 to 7, of such a group are decoded with.
struct KScale {
  float scale, minimum;
};
inline KScale k_scale_at(const uint8_t* group, int64_t j) {
  const uint8_t* q = group + 4;
  uint32_t scale = q[j % 4] & 63u, minimum = q[4 + j % 4] & 63u;
  if (j >= 4) {
    scale = (q[4 + j] & 15u) | (uint32_t{q[j - 4]} >> 6 << 4);
    minimum = (uint32_t{q[4 + j]} >> 4) | (uint32_t{q[j]} >> 6 << 4);
  }
  return {half_to_float(load_unaligned<uint16_t>(group)) * static_cast<float>(scale),
          half_to_float(load_unaligned<uint16_t>(group + 2)) * static_cast<float>(minimum)};
}

// All 256 weights of such a group, of codes of kBits bits.
template <int kBits>
void decode_k_group(const uint8_t* codes, const uint8_t* scales, float* out) {
  uint8_t unpacked[256];
  unpack_codes<kBits>(codes, 256, unpacked);
  for (int part = 0; part < 8; part++) {
    const KScale s = k_scale_at(scales, part);
    for (int k = 32 * part; k < 32 * part + 32; k++) out[k] = static_cast<float>(unpacked[k]) * s.scale - s.minimum;
  }
}

}  // namespace nibble
