// Encoders, one per kind of format. The search for the best FP4 scale tries a handful of scales for each group and
// computes the squared error of each; its loops run over whole groups of constant size, so that compilers vectorise
// them. Times below are for clang 19 at -O3, SSE2 only, one thread of a 2-core Xeon VM.
#include "formats/encode.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

// The E2M1 magnitude nearest to y >= 0, ties to even: e2m1_from_float without a code in between. Adding and subtracting
// 1.5 * 2^23 steps rounds to a multiple of the step, to an even one at ties.
inline float round_to_e2m1(float y) {
  y = y < kE2m1Largest ? y : kE2m1Largest;
  const float magic = y < 2.0f ? 0x1.8p22f : y < 4.0f ? 0x1.8p23f : 0x1.8p24f;
  return (y + magic) - magic;
}

template <size_t G>
using Group = std::array<float, G>;  // G magnitudes that will share a scale; zeros beyond the end of the row

template <size_t G>
float sum(Group<G> terms) {
  for (size_t half = G / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) terms[i] += terms[i + half];
  return terms[0];
}

// What is lost when the group is encoded with this scale; with scale 0 that is all of it.
template <size_t G>
float squared_error(const Group<G>& group, float scale) {
  const float inverse = 1.0f / scale;
  Group<G> squares;
  for (size_t i = 0; i < G; i++) {
    const float difference = group[i] - round_to_e2m1(group[i] * inverse) * scale;
    squares[i] = difference * difference;
  }
  return sum(squares);
}

// The scale of least squared error for the codes that `scale` leads to.
template <size_t G>
float refit_scale(const Group<G>& group, float scale) {
  const float inverse = 1.0f / scale;
  Group<G> products, squares;
  for (size_t i = 0; i < G; i++) {
    const float element = round_to_e2m1(group[i] * inverse);
    products[i] = group[i] * element;
    squares[i] = element * element;
  }
  return sum(products) / sum(squares);
}

// A challenger must win by more than the float sums can be wrong.
constexpr float kMargin = 0.9999f;

// write_scale: chooses a scale for a group with its largest magnitude > 0, writes its code, and returns its value.

float write_scale(Mxfp4, const Group<32>& group, float largest, ScaleSearch search, uint8_t* scale) {
  // floor(log2 largest) - 2: the largest element becomes 4 to 8, and what is beyond 6 becomes 6.
  int code = std::max(static_cast<int>(std::bit_cast<uint32_t>(largest) >> 23) - 2, 0);
  if (search == ScaleSearch::best) {
    // Only the neighbours can win. Two exponents up, every value that the group needs is on the grid one up as well;
    // two down, cutting the largest element to 6 loses more than the 31 others can gain.
    Group<32> relative;  // in units of the plain scale, so that no square overflows
    const float inverse = 1.0f / e8m0_to_float(static_cast<uint8_t>(code));
    for (size_t i = 0; i < 32; i++) relative[i] = group[i] * inverse;
    const float plain = squared_error(relative, 1.0f), coarser = squared_error(relative, 2.0f);
    const float finer = code > 0 ? squared_error(relative, 0.5f) : plain;
    if (coarser < plain * kMargin && coarser <= finer)
      code++;
    else if (finer < plain * kMargin)
      code--;
  }
  *scale = static_cast<uint8_t>(code);
  return Mxfp4::decode_scale(scale);
}

// 135 million weights take 2.4 s with the best scales, 0.7 s with plain ones; 27 % of the squared error goes.
float write_scale(Nvfp4, const Group<16>& group, float largest, ScaleSearch search, uint8_t* scale) {
  const float wanted = largest / kE2m1Largest;
  if (wanted >= kE4m3Largest + 16.0f)  // beyond it, rounding to nearest would leave the format
    throw_input_error(
        "a block reaches {} tensor scales, at most 6 * 448 = 2688 can be encoded: the tensor scale must be "
        "the tensor's largest magnitude / 2688",
        largest);
  *scale = e4m3_from_float(wanted);
  if (search == ScaleSearch::best) {
    // Where the largest element becomes 3 or less, half the scale has all the same values. Where it would be 8 or more,
    // cutting it to 6 costs too much.
    const int first = std::max<int>(e4m3_from_float(largest / 8.0f), 1);
    const int last = std::max<int>(e4m3_from_float(largest / 3.0f), 1);
    float least = squared_error(group, Nvfp4::decode_scale(scale)) * kMargin;
    for (int code = first; code <= last; code++) {
      const float error = squared_error(group, e4m3_to_float(static_cast<uint8_t>(code)));
      if (error >= least) continue;
      least = error;
      *scale = static_cast<uint8_t>(code);
    }
  }
  return Nvfp4::decode_scale(scale);
}

// Scales that are tried for a group with a half scale, largest / 8 to largest / 3, each then fitted to its codes.
// 135 million weights take 6 s with groups of 32; 24 steps take 10 s and save 0.5 % of the squared error.
constexpr int kHalfSteps = 12;

template <int G>
float write_scale(Fp4Half<G>, const Group<size_t{G}>& group, float largest, ScaleSearch search, uint8_t* scale) {
  uint16_t half = float_to_half(largest / kE2m1Largest);
  if (!std::isfinite(half_to_float(half)))
    throw_input_error("a weight of magnitude {} needs a scale beyond 65504, the largest half: {} cannot hold it",
                      largest, Fp4Half<G>::name);
  if (search == ScaleSearch::best) {
    float least = squared_error(group, half_to_float(half)) * kMargin;
    for (int step = 0; step <= kHalfSteps; step++) {
      const float tried = largest / (3.0f + 5.0f * static_cast<float>(step) / kHalfSteps);
      const uint16_t fitted = float_to_half(refit_scale(group, tried));
      if (fitted == 0 || !std::isfinite(half_to_float(fitted))) continue;
      const float error = squared_error(group, half_to_float(fitted));
      if (error >= least) continue;
      least = error;
      half = fitted;
    }
  }
  std::memcpy(scale, &half, sizeof half);
  return half_to_float(half);
}

template <class Format>
void encode_fp4_row(std::span<const float> row, float tensor_scale, ScaleSearch search, uint8_t* codes,
                    uint8_t* scales) {
  constexpr size_t G = Format::group_size;
  for (size_t first = 0; first < row.size(); first += G, codes += G / 2, scales += Format::group_scale_bytes) {
    const size_t count = std::min(G, row.size() - first);
    Group<G> values{}, magnitudes;
    std::copy_n(row.begin() + static_cast<std::ptrdiff_t>(first), count, values.begin());
    float largest = 0.0f;
    for (size_t i = 0; i < G; i++) {
      magnitudes[i] = std::fabs(values[i]) / tensor_scale;
      largest = magnitudes[i] > largest ? magnitudes[i] : largest;
    }

    std::memset(scales, 0, Format::group_scale_bytes);
    std::memset(codes, 0, (count + 1) / 2);
    if (largest == 0.0f) continue;
    const float scale = write_scale(Format{}, magnitudes, largest, search, scales);
    if (scale == 0.0f) continue;  // the group is too small for the format's least scale

    std::array<uint8_t, G> unpacked;
    for (size_t i = 0; i < G; i++)
      unpacked[i] = static_cast<uint8_t>(e2m1_from_float(std::copysign(magnitudes[i] / scale, values[i])));
    for (size_t j = 0; j < (count + 1) / 2; j++)
      codes[j] = static_cast<uint8_t>(unpacked[2 * j] | (unpacked[2 * j + 1] << 4));
  }
}

// The half nearest to `value`, into `bytes`.
template <class Format>
void write_half(float value, uint8_t* bytes) {
  const uint16_t half = float_to_half(value);
  if (!std::isfinite(half_to_float(half)))
    throw_input_error("{} is beyond 65504, the largest half: {} cannot hold it", value, Format::name);
  std::memcpy(bytes, &half, sizeof half);
}

// Calls encode(group, codes, scales) for each group of the row, the last one maybe short.
template <class Format, class Encode>
void for_each_group(std::span<const float> row, uint8_t* codes, uint8_t* scales, Encode&& encode) {
  constexpr size_t G = Format::group_size;
  std::memset(codes, 0, static_cast<size_t>(code_bytes<Format>(static_cast<int64_t>(row.size()))));
  for (size_t first = 0; first < row.size(); first += G) {
    encode(row.subspan(first, std::min(G, row.size() - first)), codes + first * Format::code_bits / 8, scales);
    scales += Format::group_scale_bytes;
  }
}

// In the order of the magnitudes, NaN above infinity.
int32_t magnitude_bits(float x) { return std::bit_cast<int32_t>(x) & 0x7FFFFFFF; }

// ggml's formats round with the exact scale, before it becomes a half; products are taken in double, so that a fused
// multiply-add changes nothing.

// The largest magnitude / 127, not rounded; not finite if one of the values is not.
float exact_q8_0_scale(const std::array<float, Q8_0::group_size>& group) {
  int32_t largest = 0;
  for (float x : group) largest = std::max(largest, magnitude_bits(x));
  return std::bit_cast<float>(largest) / 127.0f;
}

using Q8Values = std::array<float, Q8_0::group_size>;

// A group, filled up with zeros: of a constant size, and of its own, or loops would have to fear that codes overlap it.
Q8Values q8_values(std::span<const float> group) {
  Q8Values values{};
  if (group.size() == values.size()) [[likely]]
    std::memcpy(values.data(), group.data(), sizeof values);
  else
    std::ranges::copy(group, values.begin());
  return values;
}

// ggml's codes, or with ScaleSearch::best those that are nearest with the scale as it is stored: then nothing is off by
// more than half a step, where a scale rounded down to a half would cost the largest weights up to 0.06 steps more.
std::array<int8_t, Q8_0::group_size> q8_codes(const Q8Values& values, float exact_scale, ScaleSearch search) {
  const float step = search == ScaleSearch::best ? half_to_float(float_to_half(exact_scale)) : exact_scale;
  float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  if (!std::isfinite(inverse)) inverse = 0.0f;  // below the least half: the scale is 0
  std::array<int8_t, Q8_0::group_size> codes;
  const auto scaled = [&](size_t i) { return std::clamp(values[i] * inverse, -127.0f, 127.0f); };
  if (search == ScaleSearch::best) {
    // Added, 1.5 * 2^23 leaves the nearest whole number in the low bits.
    for (size_t i = 0; i < codes.size(); i++)
      codes[i] = static_cast<int8_t>(std::bit_cast<int32_t>(scaled(i) + 0x1.8p23f));
  } else {
    for (size_t i = 0; i < codes.size(); i++) codes[i] = static_cast<int8_t>(std::round(scaled(i)));
  }
  return codes;
}

void encode_q8_0_row(std::span<const float> row, ScaleSearch search, uint8_t* codes, uint8_t* scales) {
  constexpr size_t G = Q8_0::group_size;
  for (size_t first = 0; first < row.size(); first += G, codes += G, scales += Q8_0::group_scale_bytes) {
    const size_t count = std::min(G, row.size() - first);
    const Q8Values values = q8_values(row.subspan(first, count));
    const float exact = exact_q8_0_scale(values);
    write_half<Q8_0>(exact, scales);
    std::memcpy(codes, q8_codes(values, exact, search).data(), count);
  }
}

void encode_q4_0_row(std::span<const float> row, uint8_t* codes, uint8_t* scales) {
  for_each_group<Q4_0>(row, codes, scales, [](std::span<const float> group, uint8_t* code, uint8_t* scale) {
    float largest = 0.0f;  // with its sign: it becomes code 0, the only one of magnitude 8
    for (float x : group) largest = std::fabs(x) > std::fabs(largest) ? x : largest;
    const float step = largest / -8.0f;
    double inverse = step != 0.0f ? 1.0f / step : 0.0f;
    if (!std::isfinite(inverse)) inverse = 0.0;
    write_half<Q4_0>(step, scale);
    for (size_t i = 0; i < group.size(); i++)
      set_nibble(code, static_cast<int64_t>(i), static_cast<uint32_t>(std::min(group[i] * inverse + 8.5, 15.0)));
  });
}

void encode_q4_1_row(std::span<const float> row, uint8_t* codes, uint8_t* scales) {
  for_each_group<Q4_1>(row, codes, scales, [](std::span<const float> group, uint8_t* code, uint8_t* scale) {
    const auto [least, largest] = std::ranges::minmax(group);
    const float step = (largest - least) / 15.0f;
    double inverse = step > 0.0f ? 1.0f / step : 0.0f;
    if (!std::isfinite(inverse)) inverse = 0.0;
    write_half<Q4_1>(step, scale);
    write_half<Q4_1>(least, scale + 2);
    for (size_t i = 0; i < group.size(); i++)
      set_nibble(code, static_cast<int64_t>(i),
                 static_cast<uint32_t>(std::min((group[i] - least) * inverse + 0.5, 15.0)));
  });
}

void encode_f16_row(std::span<const float> row, uint8_t* codes) {
  if (const float largest = largest_magnitude(row); !std::isfinite(half_to_float(float_to_half(largest))))
    throw_input_error("{} is beyond 65504, the largest half: {} cannot hold it", largest, F16::name);
  for (size_t k = 0; k < row.size(); k++) {
    const uint16_t half = float_to_half(row[k]);
    std::memcpy(codes + 2 * k, &half, sizeof half);
  }
}

void encode_bf16_row(std::span<const float> row, uint8_t* codes) {
  for (size_t k = 0; k < row.size(); k++) {
    const uint16_t bits = float_to_bf16(row[k]);
    if (!std::isfinite(bf16_to_float(bits))) throw_input_error("{} is beyond the largest bfloat16", row[k]);
    std::memcpy(codes + 2 * k, &bits, sizeof bits);
  }
}

}  // namespace

float largest_magnitude(std::span<const float> values) {
  int32_t largest = 0;
  for (float x : values) largest = std::max(largest, magnitude_bits(x));
  return std::bit_cast<float>(largest);
}

void encode_q8_0_group(std::span<const float> group, uint8_t* codes, uint8_t* scale) {
  constexpr uint16_t kNan = 0x7E00;
  const Q8Values values = q8_values(group);
  const float exact = exact_q8_0_scale(values);
  const uint16_t half = float_to_half(exact);
  const bool fits = std::isfinite(half_to_float(half));
  std::memcpy(scale, fits ? &half : &kNan, sizeof half);
  if (fits)
    std::memcpy(codes, q8_codes(values, exact, ScaleSearch::best).data(), group.size());
  else
    std::memset(codes, 0, group.size());
}

float tensor_scale_for(FormatId format, float largest) {
  if (!has_tensor_scale(format) || largest == 0.0f) return 1.0f;
  // Not below the normal floats: quotients by it stay finite.
  return std::max(largest / (kE2m1Largest * kE4m3Largest), std::numeric_limits<float>::min());
}

void encode_row(FormatId format, std::span<const float> row, float tensor_scale, ScaleSearch search, uint8_t* codes,
                uint8_t* scales) {
  if (!std::isfinite(largest_magnitude(row))) {
    const auto bad = std::ranges::find_if_not(row, [](float x) { return std::isfinite(x); });
    throw_input_error("weight {} of a row is {}: {} holds finite values only", bad - row.begin(), *bad,
                      format_name(format));
  }
  if (!(tensor_scale > 0.0f) || !std::isfinite(tensor_scale))
    throw_input_error("the tensor scale is {}, a positive finite number expected", tensor_scale);

  switch (format) {
    case FormatId::f32:
      if (!row.empty()) std::memcpy(codes, row.data(), row.size_bytes());
      return;
    case FormatId::f16: return encode_f16_row(row, codes);
    case FormatId::bf16: return encode_bf16_row(row, codes);
    case FormatId::q8_0: return encode_q8_0_row(row, search, codes, scales);
    case FormatId::q4_0: return encode_q4_0_row(row, codes, scales);
    case FormatId::q4_1: return encode_q4_1_row(row, codes, scales);
    case FormatId::mxfp4: return encode_fp4_row<Mxfp4>(row, 1.0f, search, codes, scales);
    case FormatId::nvfp4: return encode_fp4_row<Nvfp4>(row, tensor_scale, search, codes, scales);
    case FormatId::fp4_half_32: return encode_fp4_row<Fp4Half<32>>(row, 1.0f, search, codes, scales);
    case FormatId::fp4_half_64: return encode_fp4_row<Fp4Half<64>>(row, 1.0f, search, codes, scales);
    case FormatId::fp4_half_128: return encode_fp4_row<Fp4Half<128>>(row, 1.0f, search, codes, scales);
    default: throw_input_error("{} is only read: nothing here writes it", format_name(format));
  }
}

}  // namespace nibble
