// IEEE 754 binary16, as weights and as scales.
#pragma once

#include "formats/format.h"

namespace nibble {

inline float half_to_float(uint16_t half) {
  // Exponent and mantissa moved into a float32's place are 2^112 too small, subnormals too.
  const uint32_t magnitude = (half & 0x7FFFu) << 13;
  const uint32_t sign = (half & 0x8000u) << 16;
  if (magnitude >= 0x0F800000u) return std::bit_cast<float>(sign | 0x70000000u | magnitude);  // infinity and NaN
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f));
}

// The nearest half, ties to even; what is too large becomes infinity, NaN stays NaN. Without branches, so that compilers can
// vectorise loops of it.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7FFFFFFFu;
  // Below 2^-14: steps of 2^-24, rounded by the float adder.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  const uint32_t normal = (magnitude + 0xFFFu + ((magnitude >> 13) & 1) - 0x38000000u) >> 13;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t number = magnitude >= 0x477FF000u ? 0x7C00u : finite;  // 65520 and more
  return static_cast<uint16_t>((bits >> 16 & 0x8000u) | (magnitude > 0x7F800000u ? 0x7E00u : number));
}

// Whether a half is neither infinite nor NaN: what every format with half scales asks of them.
inline bool is_finite_half(const uint8_t* bytes) { return (load_unaligned<uint16_t>(bytes) & 0x7C00u) != 0x7C00u; }

struct F16 {
  static constexpr FormatId id = FormatId::f16;
  static constexpr std::string_view name = "F16";
  static constexpr int code_bits = 16;
  static constexpr int group_size = 1;
  static constexpr int group_scale_bytes = 0;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t*, int64_t k) {
    return half_to_float(load_unaligned<uint16_t>(codes + 2 * k));
  }
  static bool is_finite(const uint8_t* codes, int64_t k) { return is_finite_half(codes + 2 * k); }
  static bool is_valid_scale(const uint8_t*) { return true; }
};

}  // namespace nibble
