// E4M3 as OCP 8-bit Floating Point Specification 1.0 has it (also called E4M3FN): bias 7, no infinity, the largest is
// 448, 0x7F and 0xFF are NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace nibble {

inline constexpr float kE4m3Largest = 448.0f;

// Without branches, so that compilers can vectorise loops of it.
constexpr float e4m3_to_float(uint8_t code) {
  const uint32_t magnitude = code & 0x7Fu, sign = (code & 0x80u) << 24;
  const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9f);  // steps of 2^-9
  const uint32_t normal = (magnitude << 20) + (uint32_t{127 - 7} << 23);  // exponent and mantissa in place
  const uint32_t number = magnitude < 8 ? subnormal : normal;
  return std::bit_cast<float>(magnitude == 0x7F ? 0x7FC00000u : sign | number);
}

// The nearest code, ties to even; beyond 448 it stays 448. `value` is not NaN.
inline uint8_t e4m3_from_float(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float x = std::fabs(value);
  if (x >= kE4m3Largest) return sign | 0x7E;
  if (x < 0x1p-6f) return sign | static_cast<uint8_t>(std::nearbyint(x * 0x1p9f));  // 8 is the smallest normal: it fits
  const uint32_t bits = std::bit_cast<uint32_t>(x) - (uint32_t{127 - 7} << 23);
  const uint32_t rounded = bits + 0x7FFFFu + ((bits >> 20) & 1);  // 20 bits of mantissa go
  return sign | static_cast<uint8_t>(rounded >> 20);
}

}  // namespace nibble
