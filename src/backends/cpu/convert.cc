#include "backends/cpu/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/packed_layout.h"
#include "formats/encode.h"

namespace nibble {

namespace {

constexpr int kMostQ8Bits = 6;  // of a source that becomes Q8_0

// The row's largest weight becomes 2^21 to 2^22: a 127th of it is a half between 2^14 and 2^15.
constexpr int kLargestExponent = 21;
constexpr int kLeastExponent = -100;  // of the factor: it stays a normal number, with the tensor scale too

// Divides the values by a power of two, which it returns.
float take_power_of_two(std::span<float> values) {
  float largest = 0.0f;
  for (float value : values) largest = std::max(largest, std::fabs(value));
  if (largest == 0.0f || !std::isfinite(largest)) return 1.0f;
  const int exponent = std::max(std::ilogb(largest) - kLargestExponent, kLeastExponent);
  const float inverse = std::ldexp(1.0f, -exponent);
  for (float& value : values) value *= inverse;
  return std::ldexp(1.0f, exponent);
}

}  // namespace

FormatId kernel_format(FormatId format) {
  constexpr auto kWithKernel = format_ids(KernelFormats{});
  if (std::ranges::find(kWithKernel, format) != kWithKernel.end()) return format;
  const int bits = visit_format(format, [](auto tag) { return decltype(tag)::code_bits; });
  return bits <= kMostQ8Bits ? FormatId::q8_0 : FormatId::bf16;
}

RowConverter::RowConverter(FormatId from, int64_t K)
    : from_(from), to_(kernel_format(from)), values_(static_cast<size_t>(K)) {}

CanonicalRow RowConverter::convert(const CanonicalRow& row, uint8_t* codes, uint8_t* scales) {
  const auto K = static_cast<int64_t>(values_.size());
  const bool is_exact = visit_format(from_, [&](auto format) {
    using Format = decltype(format);
    if constexpr (requires { Format::decode_integer(row.codes, K); }) {
      static_assert(Format::group_size == Q8_0::group_size && Format::group_scale_bytes == Q8_0::group_scale_bytes);
      for (int64_t k = 0; k < K; k++) codes[k] = static_cast<uint8_t>(Format::decode_integer(row.codes, k));
      std::memcpy(scales, row.scales, static_cast<size_t>(scale_bytes<Format>(K)));
      return true;
    } else {
      for (int64_t k = 0; k < K; k++) values_[static_cast<size_t>(k)] = format.decode(row.codes, row.scales, k);
      return false;
    }
  });
  if (is_exact) return {codes, scales, row.tensor_scale};

  const float factor = to_ == FormatId::q8_0 ? take_power_of_two(values_) : 1.0f;
  encode_row(to_, values_, 1.0f, ScaleSearch::best, codes, scales);
  return {codes, scales, row.tensor_scale * factor};
}

}  // namespace nibble
