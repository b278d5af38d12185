// How each format lies in a packed matrix, and what its integer kernel needs to know: constants only, shared by the
// packing and by the kernels of every instruction set.
//
// 16 rows are interleaved. A line is 64 bytes: 4 bytes (a lane) of each row of the block.
//   4-bit codes   8 k a line: byte j of a lane holds k = j in its low nibble and k = 4 + j in its high one
//   8-bit codes   4 k a line: byte j holds k = j, plus 128, so that it is unsigned
//   floats        k after k, 16 rows each
// Scales lie in a plane of their own, group after group, the 16 rows of a group together (Q4_1: 16 scales, 16 minima). Those
// of transposed FP4 lie k after k, once for the one or two blocks that share them.
#pragma once

#include <cstdint>

#include "weights/convert.h"

namespace nibble {

// Stands in packed caches (engine/packed_cache.h). One more for every change after which a checkpoint becomes other packed
// bytes: of the layout, of packing, of converting (weights/convert.h), or of an importer.
inline constexpr int kPackedLayoutVersion = 1;

// The formats that have kernels here, and the one in which a weight of `format` is packed.
template <class... Formats>
auto with_transposed(FormatList<Formats...>) -> FormatList<Formats..., Transposed<Mxfp4>, Transposed<Nvfp4>>;
using CpuFormats = decltype(with_transposed(KernelFormats{}));
inline FormatId cpu_format(FormatId format) { return group_rows(format) > 1 ? format : kernel_format(format); }

inline constexpr int kBlockRows = 16;
inline constexpr int kLineBytes = 64;
inline constexpr int kGroup = 32;   // k that share an activation scale
inline constexpr int kOffset = 16;  // what makes a decoded 4-bit code unsigned; the sum of the activations takes it out

enum class ScaleKind : uint8_t { none, e8m0, e4m3, half, half_and_minimum };

// The unsigned byte for each 4-bit code: kOffset plus the code's value, E2M1 doubled.
struct NibbleTable {
  uint8_t bytes[16];
};

constexpr NibbleTable e2m1_table() {
  NibbleTable table{};
  for (uint32_t c = 0; c < 16; c++) table.bytes[c] = static_cast<uint8_t>(2 * e2m1_to_float(c) + kOffset);
  return table;
}

constexpr NibbleTable integer_table(int zero) {
  NibbleTable table{};
  for (int c = 0; c < 16; c++) table.bytes[c] = static_cast<uint8_t>(c - zero + kOffset);
  return table;
}

constexpr ScaleKind scale_kind(FormatId id) {
  switch (id) {
    case FormatId::mxfp4:
    case FormatId::mxfp4_transposed: return ScaleKind::e8m0;
    case FormatId::nvfp4:
    case FormatId::nvfp4_transposed: return ScaleKind::e4m3;
    case FormatId::q4_1: return ScaleKind::half_and_minimum;
    case FormatId::f32:
    case FormatId::f16:
    case FormatId::bf16: return ScaleKind::none;
    default: return ScaleKind::half;
  }
}

template <class Format>
struct PackedLayout {
  static constexpr FormatId id = Format::id;
  static constexpr bool is_float = Format::code_bits >= 16;
  static constexpr bool is_transposed = group_rows<Format>() > 1;
  static constexpr bool is_nibble = Format::code_bits == 4;
  static constexpr bool is_e2m1 = is_nibble && id != FormatId::q4_0 && id != FormatId::q4_1;
  static constexpr int code_bits = Format::code_bits;
  static constexpr int line_k = is_nibble ? 8 : 4;               // of the integer formats
  static constexpr int code_offset = is_nibble ? kOffset : 128;  // by which their bytes are too large
  static constexpr int scale_k = Format::group_size;
  static constexpr ScaleKind scale = scale_kind(id);
  static constexpr int scale_line_bytes = (is_transposed ? 1 : kBlockRows) * Format::group_scale_bytes;  // for scale_k
  static constexpr bool has_byte_scales = scale == ScaleKind::e8m0 || scale == ScaleKind::e4m3;
  static constexpr int scale_blocks = is_transposed ? group_rows<Format>() / kBlockRows : 1;  // that share scales
  static constexpr int dot_k = is_transposed || scale_k > kGroup ? kGroup : scale_k;          // k of one integer sum
  static constexpr NibbleTable table = is_e2m1 ? e2m1_table() : integer_table(id == FormatId::q4_0 ? 8 : 0);
  // What a sum is multiplied by at the end: E2M1 codes are doubled, and E4M3 scales are read as halves, 2^8 too small.
  static constexpr float factor = (is_e2m1 ? 0.5f : 1.0f) * (scale == ScaleKind::e4m3 ? 256.0f : 1.0f);
};

// The lines of dispatch_gemm_fp4: 16 columns of 8 k, nibble i of a word is k = i (so the activations are shuffled, not
// the codes), and a half scale a column.
using GemmLayout = PackedLayout<Fp4Half<32>>;

}  // namespace nibble
