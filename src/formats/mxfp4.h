// MXFP4 (OCP Microscaling Formats 1.0): 32 E2M1 codes share one E8M0 scale.
#pragma once

#include "formats/e2m1.h"
#include "formats/e8m0.h"
#include "formats/format.h"

namespace nibble {

struct Mxfp4 {
  static constexpr FormatId id = FormatId::mxfp4;
  static constexpr std::string_view name = "MXFP4";
  static constexpr int code_bits = 4;
  static constexpr int group_size = 32;
  static constexpr int group_scale_bytes = 1;
  static constexpr bool has_tensor_scale = false;
  static float decode_scale(const uint8_t* scale) { return e8m0_to_float(*scale); }
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return e2m1_to_float(nibble_at(codes, k)) * decode_scale(scales + k / group_size);
  }
  static bool is_valid_scale(const uint8_t* scale) { return *scale != kE8m0NaN; }
};

}  // namespace nibble
