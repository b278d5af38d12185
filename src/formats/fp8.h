// FP8: E4M3 codes with a float32 scale, for all weights of a tensor or for 128 consecutive ones of a row. Scales for
// 128 x 128 weights, or for a row, are repeated.
#pragma once

#include "formats/e4m3.h"
#include "formats/format.h"

namespace nibble {

inline bool is_e4m3_number(uint8_t code) { return (code & 0x7F) != 0x7F; }

struct Fp8 {
  static constexpr FormatId id = FormatId::fp8;
  static constexpr std::string_view name = "FP8";
  static constexpr int code_bits = 8;
  static constexpr int group_size = 1;
  static constexpr int group_scale_bytes = 0;
  static constexpr bool has_tensor_scale = true;
  static float decode(const uint8_t* codes, const uint8_t*, int64_t k) { return e4m3_to_float(codes[k]); }
  static bool is_valid_scale(const uint8_t*) { return true; }
  static bool is_valid_code(uint8_t code) { return is_e4m3_number(code); }
};

struct Fp8Scaled {
  static constexpr FormatId id = FormatId::fp8_128;
  static constexpr std::string_view name = "FP8_128";
  static constexpr int code_bits = 8;
  static constexpr int group_size = 128;
  static constexpr int group_scale_bytes = 4;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return e4m3_to_float(codes[k]) * load_unaligned<float>(scales + k / group_size * 4);
  }
  static void decode_group(const uint8_t* codes, const uint8_t* scales, float* out) {
    const auto scale = load_unaligned<float>(scales);
    for (int k = 0; k < group_size; k++) out[k] = e4m3_to_float(codes[k]) * scale;
  }
  static bool is_valid_scale(const uint8_t* scale) {
    const float value = load_unaligned<float>(scale);
    return std::isfinite(value) && value >= 0.0f;
  }
  static bool is_valid_code(uint8_t code) { return is_e4m3_number(code); }
};

}  // namespace nibble
