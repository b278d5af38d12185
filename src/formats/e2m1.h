// E2M1, the 4-bit float of OCP Microscaling Formats (MX) 1.0, section 5.3.3: sign, two bits of exponent (bias 1), one of
// mantissa. No infinity, no NaN.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace nibble {

inline constexpr float kE2m1Largest = 6.0f;

// By code: bit 3 is the sign, code 8 is -0.
inline constexpr std::array<float, 16> kE2m1Values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                                      -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

constexpr float e2m1_to_float(uint32_t code) { return kE2m1Values[code & 15]; }

// The nearest code, ties to the even mantissa; beyond 6 it stays 6. `value` is not NaN.
inline uint32_t e2m1_from_float(float value) {
  // Halfway points between neighbours. At a tie the code with the even mantissa bit wins: upwards at 0.75, 1.75 and 3.5.
  const float x = std::fabs(value);
  const uint32_t magnitude =
      (x > 0.25f) + (x >= 0.75f) + (x > 1.25f) + (x >= 1.75f) + (x > 2.5f) + (x >= 3.5f) + (x > 5.0f);
  return magnitude | (std::signbit(value) ? 8u : 0u);
}

}  // namespace nibble
