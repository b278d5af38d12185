// IQ4_NL (block_iq4_nl and kvalues_iq4nl in ggml-common.h): 32 codes of 4 bits, which stand for 16 unevenly spaced
// whole numbers, share one half scale. value = kIq4NlValues[code] * scale.
#pragma once

#include <array>

#include "formats/f16.h"
#include "formats/format.h"

namespace nibble {

inline constexpr std::array<int8_t, 16> kIq4NlValues = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                        1,    13,   25,  38,  53,  69,  89,  113};

struct Iq4Nl {
  static constexpr FormatId id = FormatId::iq4_nl;
  static constexpr std::string_view name = "IQ4_NL";
  static constexpr int code_bits = 4;
  static constexpr int group_size = 32;
  static constexpr int group_scale_bytes = 2;
  static constexpr bool has_tensor_scale = false;
  static int decode_integer(const uint8_t* codes, int64_t k) { return kIq4NlValues[nibble_at(codes, k)]; }
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return static_cast<float>(decode_integer(codes, k)) *
           half_to_float(load_unaligned<uint16_t>(scales + k / group_size * 2));
  }
  static bool is_valid_scale(const uint8_t* scale) { return is_finite_half(scale); }
};

}  // namespace nibble
