// bfloat16: the upper half of a float32.
#pragma once

#include "formats/format.h"

namespace nibble {

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// The nearest bfloat16, ties to even; NaN stays NaN.
inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16);
}

struct Bf16 {
  static constexpr FormatId id = FormatId::bf16;
  static constexpr std::string_view name = "BF16";
  static constexpr int code_bits = 16;
  static constexpr int group_size = 1;
  static constexpr int group_scale_bytes = 0;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t*, int64_t k) {
    return bf16_to_float(load_unaligned<uint16_t>(codes + 2 * k));
  }
  static bool is_finite(const uint8_t* codes, int64_t k) {
    return (load_unaligned<uint16_t>(codes + 2 * k) & 0x7F80u) != 0x7F80u;
  }
  static bool is_valid_scale(const uint8_t*) { return true; }
};

}  // namespace nibble
