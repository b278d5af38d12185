#include "weights/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/encode.h"

namespace nibble {

namespace {

constexpr int kMostQ8Bits = 6;  // of a source that becomes Q8_0

// What the row's largest weight becomes at least, and less than twice of: as a half, or with a 127th of it as a half, it
// is between 2^14 and 2^15.
constexpr int kLargestExponent = 14, kLargestQ8Exponent = 21;
constexpr int kLeastExponent = -100;  // of the factor: it stays a normal number, with the tensor scale too

// The exponent of the power of two by which `largest` is divided to become 2^wanted to 2^(wanted + 1).
int factor_exponent(float largest, int wanted) {
  return largest > 0.0f && std::isfinite(largest) ? std::max(std::ilogb(largest) - wanted, kLeastExponent) : 0;
}

// Divides the values by a power of two, so that the largest becomes 2^wanted to 2^(wanted + 1). Returns the divisor.
float take_power_of_two(std::span<float> values, int wanted) {
  const int exponent = factor_exponent(largest_magnitude(values), wanted);
  const float inverse = std::ldexp(1.0f, -exponent);
  for (float& value : values) value *= inverse;
  return std::ldexp(1.0f, exponent);
}

// Affine<4, …> is Q4_1 with float32 scales, and maybe longer groups.
template <class Format>
CanonicalRow affine_to_q4_1(const CanonicalRow& row, int64_t K, uint8_t* codes, uint8_t* scales) {
  const auto number = [&](int64_t group, int64_t i) { return load_unaligned<float>(row.scales + group * 8 + i * 4); };
  float largest = 0.0f;
  for (int64_t g = 0; g < scale_bytes<Format>(K) / 8; g++)
    for (int64_t i : {0, 1}) largest = std::max(largest, std::fabs(number(g, i)));
  const int exponent = factor_exponent(largest, kLargestExponent);
  std::memcpy(codes, row.codes, static_cast<size_t>(code_bytes<Format>(K)));
  for (int64_t g = 0; g < scale_bytes<Q4_1>(K) / 4; g++) {
    for (int64_t i : {0, 1}) {
      const uint16_t half = float_to_half(std::ldexp(number(g * Q4_1::group_size / Format::group_size, i), -exponent));
      std::memcpy(scales + g * 4 + i * 2, &half, sizeof half);
    }
  }
  return {codes, scales, std::ldexp(row.tensor_scale, exponent)};
}

}  // namespace

FormatId kernel_format(FormatId format) {
  constexpr auto kWithKernel = format_ids(KernelFormats{});
  if (std::ranges::find(kWithKernel, format) != kWithKernel.end()) return format;
  if (format == FormatId::affine4_32 || format == FormatId::affine4_64 || format == FormatId::affine4_128)
    return FormatId::q4_1;
  if (group_rows(format) > 1) return FormatId::bf16;
  const int bits = visit_format(format, [](auto tag) { return decltype(tag)::code_bits; });
  return bits <= kMostQ8Bits ? FormatId::q8_0 : FormatId::f16;
}

RowConverter::RowConverter(FormatId from, int64_t K)
    : from_(from), to_(kernel_format(from)), values_(static_cast<size_t>(K)) {}

CanonicalRow RowConverter::convert(const CanonicalRow& row, uint8_t* codes, uint8_t* scales) {
  const auto K = static_cast<int64_t>(values_.size());
  switch (from_) {
    case FormatId::affine4_32: return affine_to_q4_1<Affine<4, 32>>(row, K, codes, scales);
    case FormatId::affine4_64: return affine_to_q4_1<Affine<4, 64>>(row, K, codes, scales);
    case FormatId::affine4_128: return affine_to_q4_1<Affine<4, 128>>(row, K, codes, scales);
    default: break;
  }
  const bool is_exact = visit_format(from_, [&](auto format) {
    using Format = decltype(format);
    if constexpr (requires { Format::decode_integer(row.codes, K); }) {
      static_assert(Format::group_size == Q8_0::group_size && Format::group_scale_bytes == Q8_0::group_scale_bytes);
      for (int64_t k = 0; k < K; k++) codes[k] = static_cast<uint8_t>(Format::decode_integer(row.codes, k));
      std::memcpy(scales, row.scales, static_cast<size_t>(scale_bytes<Format>(K)));
      return true;
    } else {
      int64_t k = 0;
      if constexpr (requires { Format::decode_group(row.codes, row.scales, values_.data()); })
        for (int64_t g = 0; k + Format::group_size <= K; g++, k += Format::group_size)
          Format::decode_group(row.codes + code_bytes<Format>(k), row.scales + g * Format::group_scale_bytes,
                               values_.data() + k);
      for (; k < K; k++) values_[static_cast<size_t>(k)] = format.decode(row.codes, row.scales, k);
      return false;
    }
  });
  if (is_exact) return {codes, scales, row.tensor_scale};

  if (to_ == FormatId::bf16) {
    encode_row(to_, values_, 1.0f, ScaleSearch::plain, codes, scales);
    return {codes, scales, row.tensor_scale};
  }
  const float factor = take_power_of_two(values_, to_ == FormatId::q8_0 ? kLargestQ8Exponent : kLargestExponent);
  encode_row(to_, values_, 1.0f, ScaleSearch::best, codes, scales);
  return {codes, scales, row.tensor_scale * factor};
}

}  // namespace nibble
