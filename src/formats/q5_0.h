// Q5_0 (block_q5_0 in ggml-common.h): 32 codes of 5 bits share one half scale. value = (code - 16) * scale.
#pragma once

#include "formats/f16.h"
#include "formats/format.h"

namespace nibble {

struct Q5_0 {
  static constexpr FormatId id = FormatId::q5_0;
  static constexpr std::string_view name = "Q5_0";
  static constexpr int code_bits = 5;
  static constexpr int group_size = 32;
  static constexpr int group_scale_bytes = 2;
  static constexpr bool has_tensor_scale = false;
  static int decode_integer(const uint8_t* codes, int64_t k) { return static_cast<int>(code_at<5>(codes, k)) - 16; }
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return static_cast<float>(decode_integer(codes, k)) *
           half_to_float(load_unaligned<uint16_t>(scales + k / group_size * 2));
  }
  static bool is_valid_scale(const uint8_t* scale) { return is_finite_half(scale); }
};

}  // namespace nibble
