// What every format tells about itself, and the list of all formats.
//
// A format gives meaning to one row of K weights: `code_bytes` bytes of codes and, beside them, `scale_bytes` bytes of
// scales, one scale for each group of `group_size` consecutive k (the last group may be short). A format is a struct:
//
//   static constexpr FormatId id;
//   static constexpr std::string_view name;    // as `nibble plan` prints it
//   static constexpr int code_bits;            // per weight
//   static constexpr int group_size;           // k that share a scale; 1 for a format without scales
//   static constexpr int group_scale_bytes;    // per group; 0 for a format without scales
//   static constexpr int group_rows;           // only if consecutive rows share their scales: how many, counted from
//                                            // each expert's first row on (the last group may be short)
//   static constexpr bool has_tensor_scale;    // whether each part of a tensor has one more float32 multiplier
//   static float decode(const uint8_t* codes, const uint8_t* scales, int64_t k);  // weight k of a row, exactly
//   static void decode_group(const uint8_t* codes, const uint8_t* scales, float* out);  // only where that is much faster:
//                                                            // decode of all weights of a group
//   static bool is_valid_scale(const uint8_t* scale);  // false for NaN and for what the format does not have
//   static int decode_integer(const uint8_t* codes, int64_t k);  // only if a scale is one half for 32 weights, and
//                                                                // weight k is this int8 times it
//   static bool is_valid_code(uint8_t code);           // only if a code can be NaN: false for these
//   static bool is_finite(const uint8_t* codes, int64_t k);  // only of floats: whether decode of k is finite
//
// Multi-byte codes and scales are little-endian. Codes of less than a byte are packed without gaps from the low end,
// whatever order the file had: bit i of code k is bit k * code_bits + i of the row. So byte j of a row of 4-bit codes
// holds k = 2j in its low nibble and k = 2j + 1 in its high nibble.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nibble {

static_assert(std::endian::native == std::endian::little, "codes and scales are read as the host's integers");

enum class FormatId : uint8_t {
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  mxfp4,
  nvfp4,
  mxfp4_transposed,
  nvfp4_transposed,
  fp4_half_32,
  fp4_half_64,
  fp4_half_128,
  fp8,
  fp8_128,
  affine4_32,
  affine4_64,
  affine4_128,
  affine8_32,
  affine8_64,
  affine8_128
};

// Bytes of the codes of one row of K weights.
template <class Format>
constexpr int64_t code_bytes(int64_t K) {
  return (K * Format::code_bits + 7) / 8;
}

// Bytes of the scales of one row of K weights.
template <class Format>
constexpr int64_t scale_bytes(int64_t K) {
  return (K + Format::group_size - 1) / Format::group_size * Format::group_scale_bytes;
}

// Consecutive rows that share their scales.
template <class Format>
constexpr int group_rows() {
  if constexpr (requires { Format::group_rows; }) return Format::group_rows;
  return 1;
}

// The code of weight k in a row of 4-bit codes.
inline uint32_t nibble_at(const uint8_t* codes, int64_t k) { return (codes[k / 2] >> (k % 2 * 4)) & 15u; }

// Puts `code` into a row of 4-bit codes whose nibble k is still zero.
inline void set_nibble(uint8_t* codes, int64_t k, uint32_t code) {
  codes[k / 2] |= static_cast<uint8_t>(code << (k % 2 * 4));
}

// The code of weight k in a row of codes of kBits bits, at most 8.
template <int kBits>
uint32_t code_at(const uint8_t* codes, int64_t k) {
  const int64_t bit = k * kBits;
  const auto shift = static_cast<int>(bit % 8);
  uint32_t bits = codes[bit / 8];
  if (shift + kBits > 8) bits |= uint32_t{codes[bit / 8 + 1]} << 8;
  return (bits >> shift) & ((1u << kBits) - 1);
}

// Puts `code` into a row of codes of kBits bits whose bits for weight k are still zero.
template <int kBits>
void set_code(uint8_t* codes, int64_t k, uint32_t code) {
  const int64_t bit = k * kBits;
  const auto shift = static_cast<int>(bit % 8);
  codes[bit / 8] |= static_cast<uint8_t>(code << shift);
  if (shift + kBits > 8) codes[bit / 8 + 1] |= static_cast<uint8_t>(code >> (8 - shift));
}

// The same for a whole group at once: `count` codes, a multiple of 8, a byte each.
template <int kBits>
void unpack_codes(const uint8_t* codes, int64_t count, uint8_t* unpacked) {
  if constexpr (kBits == 4) {
    for (int64_t i = 0; i < count / 2; i++) {
      unpacked[2 * i] = codes[i] & 15u;
      unpacked[2 * i + 1] = codes[i] >> 4;
    }
    return;
  }
  for (int64_t k = 0; k < count; k += 8, codes += kBits) {
    uint64_t bits = 0;
    std::memcpy(&bits, codes, kBits);
    for (int i = 0; i < 8; i++) unpacked[k + i] = static_cast<uint8_t>(bits >> (i * kBits) & ((1u << kBits) - 1));
  }
}
template <int kBits>
void pack_codes(const uint8_t* unpacked, int64_t count, uint8_t* codes) {
  for (int64_t k = 0; k < count; k += 8, codes += kBits) {
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits |= uint64_t{unpacked[k + i]} << (i * kBits);
    std::memcpy(codes, &bits, kBits);
  }
}

// A T from bytes that need not be aligned.
template <class T>
T load_unaligned(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

}  // namespace nibble
