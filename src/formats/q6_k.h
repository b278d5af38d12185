// Q6_K (block_q6_K in ggml-common.h): 256 codes of 6 bits; for each 16 of them an int8 scale, for all of them a half d,
// which comes after the 16 scales. value = d * scale * (code - 32), exact in float32.
#pragma once

#include "formats/f16.h"
#include "formats/format.h"

namespace nibble {

struct Q6_K {
  static constexpr FormatId id = FormatId::q6_k;
  static constexpr std::string_view name = "Q6_K";
  static constexpr int code_bits = 6;
  static constexpr int group_size = 256;
  static constexpr int group_scale_bytes = 18;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    const uint8_t* group = scales + k / group_size * group_scale_bytes;
    const float scale = static_cast<int8_t>(group[k % group_size / 16]);
    return half_to_float(load_unaligned<uint16_t>(group + 16)) * scale *
           static_cast<float>(static_cast<int>(code_at<6>(codes, k)) - 32);
  }
  static void decode_group(const uint8_t* codes, const uint8_t* scales, float* out) {
    uint8_t unpacked[group_size];
    unpack_codes<6>(codes, group_size, unpacked);
    const float d = half_to_float(load_unaligned<uint16_t>(scales + 16));
    for (int part = 0; part < group_size / 16; part++) {
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[part]));
      for (int k = 16 * part; k < 16 * part + 16; k++) out[k] = scale * static_cast<float>(unpacked[k] - 32);
    }
  }
  static bool is_valid_scale(const uint8_t* scale) { return is_finite_half(scale + 16); }
};

}  // namespace nibble
