#pragma once

#include <cstdint>
#include <random>

namespace nibble {

// A number about as a normal distribution of variance 1 gives it: the sum of four of 16 bits, at most 3.46 from 0.
// std::normal_distribution takes logarithms of long doubles: AArch64 has no instructions for those, and emulated they take microseconds.
inline float random_float(std::mt19937& random) {
  uint32_t sum = 0;
  for (int i = 0; i < 2; i++) {
    const auto word = static_cast<uint32_t>(random());
    sum += (word & 0xFFFF) + (word >> 16);
  }
  return (static_cast<float>(sum) - 2 * 65535.0f) / 37837.2f;
}

}  // namespace nibble
