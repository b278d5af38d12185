// MLX's affine integers: unsigned codes share a float32 scale and a float32 bias, in this order. value = code * scale +
// bias. The scale may be negative. Files have bfloat16 or half scales; then code * scale is exact.
#pragma once

#include <cmath>

#include "formats/format.h"

namespace nibble {

template <int kBits, int kGroupSize>
struct Affine {
  static_assert(kBits == 4 || kBits == 8);
  static_assert(kGroupSize == 32 || kGroupSize == 64 || kGroupSize == 128);
  static constexpr FormatId id = kBits == 4 ? (kGroupSize == 32   ? FormatId::affine4_32
                                               : kGroupSize == 64 ? FormatId::affine4_64
                                                                  : FormatId::affine4_128)
                                            : (kGroupSize == 32   ? FormatId::affine8_32
                                               : kGroupSize == 64 ? FormatId::affine8_64
                                                                  : FormatId::affine8_128);
  static constexpr std::string_view name = kBits == 4 ? (kGroupSize == 32   ? "AFFINE4_32"
                                                         : kGroupSize == 64 ? "AFFINE4_64"
                                                                            : "AFFINE4_128")
                                                      : (kGroupSize == 32   ? "AFFINE8_32"
                                                         : kGroupSize == 64 ? "AFFINE8_64"
                                                                            : "AFFINE8_128");
  static constexpr int code_bits = kBits;
  static constexpr int group_size = kGroupSize;
  static constexpr int group_scale_bytes = 8;
  static constexpr bool has_tensor_scale = false;
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    const uint8_t* group = scales + k / group_size * 8;
    const uint32_t code = kBits == 8 ? codes[k] : nibble_at(codes, k);
    return static_cast<float>(code) * load_unaligned<float>(group) + load_unaligned<float>(group + 4);
  }
  static void decode_group(const uint8_t* codes, const uint8_t* scales, float* out) {
    const auto scale = load_unaligned<float>(scales), bias = load_unaligned<float>(scales + 4);
    for (int k = 0; k < group_size; k++)
      out[k] = static_cast<float>(kBits == 8 ? codes[k] : nibble_at(codes, k)) * scale + bias;
  }
  static bool is_valid_scale(const uint8_t* scale) {
    return std::isfinite(load_unaligned<float>(scale)) && std::isfinite(load_unaligned<float>(scale + 4));
  }
};

}  // namespace nibble
