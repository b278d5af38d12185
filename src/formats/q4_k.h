// Q4_K (ggml): 256 codes of 4 bits share the scales and minima that k_scales.h describes.
#pragma once

#include "formats/k_scales.h"

namespace nibble {

struct Q4_K {
  static constexpr FormatId id = FormatId::q4_k;
  static constexpr std::string_view name = "Q4_K";
  static constexpr int code_bits = 4;
  static constexpr int group_size = 256;
  static constexpr int group_scale_bytes = kKScaleBytes;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    const KScale s = k_scale_at(scales + k / group_size * kKScaleBytes, k % group_size / 32);
    return static_cast<float>(code_at<4>(codes, k)) * s.scale - s.minimum;
  }
  static void decode_group(const uint8_t* codes, const uint8_t* scales, float* out) {
    decode_k_group<4>(codes, scales, out);
  }
  static bool is_valid_scale(const uint8_t* scale) { return is_finite_half(scale) && is_finite_half(scale + 2); }
};

}  // namespace nibble
