// FP4 with half scales: 32, 64 or 128 E2M1 codes share one half. The format of dispatch_gemm_fp4's B.
#pragma once

#include "formats/e2m1.h"
#include "formats/f16.h"
#include "formats/format.h"

namespace nibble {

template <int kGroupSize>
struct Fp4Half {
  static_assert(kGroupSize == 32 || kGroupSize == 64 || kGroupSize == 128);
  static constexpr FormatId id = kGroupSize == 32   ? FormatId::fp4_half_32
                                 : kGroupSize == 64 ? FormatId::fp4_half_64
                                                    : FormatId::fp4_half_128;
  static constexpr std::string_view name = kGroupSize == 32   ? "FP4_HALF_32"
                                           : kGroupSize == 64 ? "FP4_HALF_64"
                                                              : "FP4_HALF_128";
  static constexpr int code_bits = 4;
  static constexpr int group_size = kGroupSize;
  static constexpr int group_scale_bytes = 2;
  static constexpr bool has_tensor_scale = false;
  static float decode_scale(const uint8_t* scale) { return half_to_float(load_unaligned<uint16_t>(scale)); }
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return e2m1_to_float(nibble_at(codes, k)) * decode_scale(scales + k / group_size * 2);
  }
  static bool is_valid_scale(const uint8_t* scale) { return is_finite_half(scale); }
};

}  // namespace nibble
