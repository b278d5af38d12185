// E8M0, the scale of OCP Microscaling Formats (MX) 1.0, section 5.4.1: 2^(code - 127), nothing else. 255 is NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace nibble {

inline constexpr int kE8m0Bias = 127;
inline constexpr uint8_t kE8m0NaN = 255;

constexpr float e8m0_to_float(uint8_t code) {
  if (code == kE8m0NaN) return std::numeric_limits<float>::quiet_NaN();
  if (code == 0) return std::bit_cast<float>(0x00400000u);  // 2^-127 is a subnormal float32
  return std::bit_cast<float>(static_cast<uint32_t>(code) << 23);
}

}  // namespace nibble
