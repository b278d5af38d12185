// IEEE 754 binary32, as it is.
#pragma once

#include "formats/format.h"

namespace nibble {

struct F32 {
  static constexpr FormatId id = FormatId::f32;
  static constexpr std::string_view name = "F32";
  static constexpr int code_bits = 32;
  static constexpr int group_size = 1;
  static constexpr int group_scale_bytes = 0;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t*, int64_t k) { return load_unaligned<float>(codes + 4 * k); }
  static bool is_finite(const uint8_t* codes, int64_t k) {
    return (load_unaligned<uint32_t>(codes + 4 * k) & 0x7F800000u) != 0x7F800000u;
  }
  static bool is_valid_scale(const uint8_t*) { return true; }
};

}  // namespace nibble
