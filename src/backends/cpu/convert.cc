#include "backends/cpu/convert.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/packed_layout.h"
#include "formats/encode.h"

namespace nibble {

namespace {

constexpr int kMostQ8Bits = 6;  // of a source that becomes Q8_0

// The row's largest weight becomes 2^21 to 2^22: a 127th of it is a half between 2^14 and 2^15.
constexpr int kLargestExponent = 21;
constexpr int kLeastExponent = -100;  // of the factor: it stays a normal number, with the tensor scale too

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
  visit_format(from_, [&](auto format) {
    for (size_t k = 0; k < values_.size(); k++)
      values_[k] = format.decode(row.codes, row.scales, static_cast<int64_t>(k));
  });
  float factor = row.tensor_scale;
  if (to_ == FormatId::q8_0) {
    float largest = 0.0f;
    for (float value : values_) largest = std::max(largest, std::fabs(value));
    if (largest > 0.0f && std::isfinite(largest)) {
      const int exponent = std::max(std::ilogb(largest) - kLargestExponent, kLeastExponent);
      for (float& value : values_) value = std::ldexp(value, -exponent);
      factor = std::ldexp(factor, exponent);
    }
  }
  encode_row(to_, values_, 1.0f, ScaleSearch::best, codes, scales);
  return {codes, scales, factor};
}

}  // namespace nibble
