// The transposition of a matrix of FP4: codes row by row, as ever, but a scale belongs to consecutive rows of one column,
// which were a group of one row before.
#pragma once

#include "formats/mxfp4.h"
#include "formats/nvfp4.h"

namespace nibble {

template <class Fp4>
struct Transposed {
  static constexpr FormatId id = Fp4::id == FormatId::mxfp4 ? FormatId::mxfp4_transposed : FormatId::nvfp4_transposed;
  static constexpr std::string_view name = Fp4::id == FormatId::mxfp4 ? "MXFP4_TRANSPOSED" : "NVFP4_TRANSPOSED";
  static constexpr int code_bits = Fp4::code_bits;
  static constexpr int group_size = 1;
  static constexpr int group_rows = Fp4::group_size;
  static constexpr int group_scale_bytes = Fp4::group_scale_bytes;
  static constexpr bool has_tensor_scale = Fp4::has_tensor_scale;
  static float decode_scale(const uint8_t* scale) { return Fp4::decode_scale(scale); }
  static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k) {
    return e2m1_to_float(nibble_at(codes, k)) * decode_scale(scales + k * group_scale_bytes);
  }
  static bool is_valid_scale(const uint8_t* scale) { return Fp4::is_valid_scale(scale); }
};

}  // namespace nibble
