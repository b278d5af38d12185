// NVFP4 (NVIDIA): 16 E2M1 codes share one E4M3 scale, and each part of a tensor has a float32 multiplier.
#pragma once

#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/format.h"

namespace nibble {

struct Nvfp4 {
  static constexpr FormatId id = FormatId::nvfp4;
  static constexpr std::string_view name = "NVFP4";
  static constexpr int code_bits = 4;
  static constexpr int group_size = 16;
  static constexpr int group_scale_bytes = 1;
  static constexpr bool has_tensor_scale = true;
  static float decode_scale(const uint8_t* scale) { return e4m3_to_float(*scale); }
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return e2m1_to_float(nibble_at(codes, k)) * decode_scale(scales + k / group_size);
  }
  // A sign bit would mean a mixed codebook, which is another format.
  static bool is_valid_scale(const uint8_t* scale) { return *scale < 0x7F; }
};

}  // namespace nibble
