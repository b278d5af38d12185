// Q5_1 (block_q5_1 in ggml-common.h): 32 codes of 5 bits share a half scale and a half minimum, in this order.
// value = code * scale + minimum.
#pragma once

#include "formats/f16.h"
#include "formats/format.h"

namespace nibble {

struct Q5_1 {
  static constexpr FormatId id = FormatId::q5_1;
  static constexpr std::string_view name = "Q5_1";
  static constexpr int code_bits = 5;
  static constexpr int group_size = 32;
  static constexpr int group_scale_bytes = 4;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    const uint8_t* group = scales + k / group_size * 4;
    return static_cast<float>(code_at<5>(codes, k)) * half_to_float(load_unaligned<uint16_t>(group)) +
           half_to_float(load_unaligned<uint16_t>(group + 2));
  }
  static void decode_group(const uint8_t* codes, const uint8_t* scales, float* out) {
    uint8_t unpacked[group_size];
    unpack_codes<5>(codes, group_size, unpacked);
    const float scale = half_to_float(load_unaligned<uint16_t>(scales));
    const float minimum = half_to_float(load_unaligned<uint16_t>(scales + 2));
    for (int k = 0; k < group_size; k++) out[k] = static_cast<float>(unpacked[k]) * scale + minimum;
  }
  static bool is_valid_scale(const uint8_t* scale) { return is_finite_half(scale) && is_finite_half(scale + 2); }
};

}  // namespace nibble
