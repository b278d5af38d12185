#include "formats/encode.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble {
namespace {

const std::vector<FormatId> kGrouped = {FormatId::q8_0,        FormatId::q4_0,        FormatId::q4_1,
                                        FormatId::mxfp4,       FormatId::nvfp4,       FormatId::fp4_half_32,
                                        FormatId::fp4_half_64, FormatId::fp4_half_128};

struct Encoded {
  std::vector<uint8_t> codes, scales;
};

Encoded encode(FormatId format, const std::vector<float>& row, float tensor_scale = 1.0f,
               ScaleSearch search = ScaleSearch::plain) {
  const auto K = static_cast<int64_t>(row.size());
  // Filled with rubbish: every byte must be written.
  Encoded e{std::vector<uint8_t>(static_cast<size_t>(code_bytes(format, K)), 0xEE),
            std::vector<uint8_t>(static_cast<size_t>(scale_bytes(format, K)), 0xEE)};
  encode_row(format, row, tensor_scale, search, e.codes.data(), e.scales.data());
  return e;
}

std::vector<float> decode(FormatId format, const Encoded& e, size_t K, float tensor_scale = 1.0f) {
  std::vector<float> row(K);
  visit_format(format, [&](auto f) {
    for (size_t k = 0; k < K; k++)
      row[k] = f.decode(e.codes.data(), e.scales.data(), static_cast<int64_t>(k)) * tensor_scale;
  });
  return row;
}

std::vector<float> random_row(size_t K, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> row(K);
  for (float& x : row) x = normal(random);
  return row;
}

float largest_magnitude(const std::vector<float>& row) {
  float largest = 0.0f;
  for (float x : row) largest = std::max(largest, std::fabs(x));
  return largest;
}

TEST(EncodeRow, Mxfp4ScaleIsTheExponentOfTheLargestMinusTwo) {
  for (int exponent : {-20, -1, 0, 1, 30}) {
    for (float mantissa : {1.0f, 1.49f, 1.75f, 1.9999f}) {
      std::vector<float> row(32, 0.0f);
      row[7] = -std::ldexp(mantissa, exponent);
      EXPECT_EQ(encode(FormatId::mxfp4, row).scales[0], exponent - 2 + 127);
    }
  }
}

TEST(EncodeRow, Mxfp4RoundsTiesToEvenInTheGroupsScale) {
  std::vector<float> row(32, 0.0f);
  const std::vector<float> first = {4.0f, 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, -0.75f, -5.0f, 7.9f, -7.9f};
  std::copy(first.begin(), first.end(), row.begin());
  for (float scale : {1.0f, 0x1p-9f, 0x1p100f}) {
    std::vector<float> scaled = row;
    for (float& x : scaled) x *= scale;
    const Encoded e = encode(FormatId::mxfp4, scaled);
    const std::vector<uint32_t> expected = {6, 0, 2, 2, 4, 4, 6, 6, 10, 14, 7, 15, 0};
    for (size_t k = 0; k < expected.size(); k++)
      EXPECT_EQ(nibble_at(e.codes.data(), static_cast<int64_t>(k)), expected[k]) << k;
  }
}

TEST(EncodeRow, Mxfp4ReachesBothEndsOfE8m0) {
  std::vector<float> row(32, 0x1p-126f);
  row[0] = 0x1p-128f;
  const Encoded least = encode(FormatId::mxfp4, row, 1.0f, ScaleSearch::best);
  EXPECT_EQ(decode(FormatId::mxfp4, least, 32), row);
  row.assign(32, std::numeric_limits<float>::max());
  EXPECT_EQ(encode(FormatId::mxfp4, row).scales[0], 127 - 2 + 127);
  row.assign(32, 0x1p127f);
  EXPECT_EQ(decode(FormatId::mxfp4, encode(FormatId::mxfp4, row, 1.0f, ScaleSearch::best), 32), row);
}

TEST(EncodeRow, Nvfp4ScaleIsBlockMaximumOverSixOverTensorScale) {
  const std::vector<float> row = random_row(160, 1);
  const float tensor_scale = tensor_scale_for(FormatId::nvfp4, largest_magnitude(row));
  EXPECT_FLOAT_EQ(tensor_scale, largest_magnitude(row) / 2688.0f);
  const Encoded e = encode(FormatId::nvfp4, row, tensor_scale);
  int with_largest_scale = 0;
  for (size_t block = 0; block < 10; block++) {
    const float largest = largest_magnitude({row.begin() + 16 * block, row.begin() + 16 * (block + 1)});
    EXPECT_EQ(e.scales[block], e4m3_from_float(largest / 6.0f / tensor_scale));
    with_largest_scale += e.scales[block] == 0x7E;
  }
  EXPECT_GE(with_largest_scale, 1);
}

TEST(EncodeRow, HalfScaleIsLargestOverSix) {
  const std::vector<float> row = random_row(128, 2);
  const Encoded e = encode(FormatId::fp4_half_128, row);
  EXPECT_EQ(load_unaligned<uint16_t>(e.scales.data()), float_to_half(largest_magnitude(row) / 6.0f));
}

// Expected bytes are those of gguf-py's quantizers (numpy) for x[k] = ((37 k) mod 64 - 29) / 8 + k / 1024.
TEST(EncodeRow, GgmlFormatsGiveGgmlsBytes) {
  std::vector<float> row(32);
  for (int k = 0; k < 32; k++) row[k] = static_cast<float>(37 * k % 64 - 29) / 8 + static_cast<float>(k) / 1024;
  const Encoded q8_0 = encode(FormatId::q8_0, row), q4_0 = encode(FormatId::q4_0, row),
                q4_1 = encode(FormatId::q4_1, row);
  EXPECT_EQ(q8_0.scales, (std::vector<uint8_t>{77, 40}));
  EXPECT_EQ(q8_0.codes,
            (std::vector<uint8_t>{148, 30, 185, 67,  223, 104, 4,  160, 41,  197, 78,  234, 116, 15, 171, 53,
                                  208, 90, 245, 127, 27,  182, 64, 219, 101, 1,   156, 38,  194, 75, 231, 112}));
  EXPECT_EQ(q4_0.scales, (std::vector<uint8_t>{69, 184}));
  EXPECT_EQ(q4_1.scales, (std::vector<uint8_t>{54, 56, 64, 195}));

  // ggml's order: the low nibble of byte j is element j, the high nibble is element j + 16.
  const auto expect_nibbles = [&](FormatId format, const Encoded& e, const std::vector<uint8_t>& ggml) {
    for (int64_t j = 0; j < 16; j++) {
      EXPECT_EQ(nibble_at(e.codes.data(), j), ggml[static_cast<size_t>(j)] & 15u) << format_name(format) << " " << j;
      EXPECT_EQ(nibble_at(e.codes.data(), j + 16), ggml[static_cast<size_t>(j)] >> 4u)
          << format_name(format) << " " << j;
    }
  };
  expect_nibbles(FormatId::q4_0, q4_0, {191, 38, 156, 4, 106, 209, 72, 174, 37, 140, 227, 105, 193, 55, 173, 21});
  expect_nibbles(FormatId::q4_1, q4_1, {64, 217, 98, 251, 149, 46, 183, 81, 218, 115, 28, 149, 62, 200, 81, 234});
  const Encoded mxfp4 = encode(FormatId::mxfp4, row);
  EXPECT_EQ(mxfp4.scales[0], 127);
  expect_nibbles(FormatId::mxfp4, mxfp4, {190, 82, 156, 100, 42, 198, 64, 173, 83, 12, 213, 57, 198, 81, 173, 100});
}

TEST(EncodeRow, SixteenBitFormatsRoundEachWeight) {
  const std::vector<float> row = random_row(33, 3);
  const std::vector<float> halves = decode(FormatId::f16, encode(FormatId::f16, row), 33);
  const std::vector<float> bfloats = decode(FormatId::bf16, encode(FormatId::bf16, row), 33);
  for (size_t k = 0; k < 33; k++) {
    EXPECT_EQ(halves[k], half_to_float(float_to_half(row[k])));
    EXPECT_EQ(bfloats[k], bf16_to_float(float_to_bf16(row[k])));
  }
  EXPECT_EQ(decode(FormatId::f32, encode(FormatId::f32, row), 33), row);
}

// Whatever the scale rounds to, down to where halves are subnormal (weights below 0.008).
TEST(EncodeRow, BestQ8CodesAreWithinHalfAStep) {
  for (uint32_t seed = 0; seed < 2000; seed++) {
    const std::vector<float> row = random_row(32, seed, std::ldexp(1.0f, static_cast<int>(seed % 20) - 7));
    const float largest = largest_magnitude(row);
    const auto best = decode(FormatId::q8_0, encode(FormatId::q8_0, row, 1.0f, ScaleSearch::best), 32);
    for (size_t k = 0; k < 32; k++) ASSERT_NEAR(best[k], row[k], largest / 250) << "seed " << seed << " k " << k;
  }
}

// What a format can hold it keeps: decoding, encoding with the best scales and decoding again changes nothing.
TEST(EncodeRow, KeepsWhatTheFormatCanHold) {
  for (FormatId format : kGrouped) {
    if (format == FormatId::q8_0 || format == FormatId::q4_0 || format == FormatId::q4_1) continue;
    const std::vector<float> row = random_row(256, 4);
    const float tensor_scale = tensor_scale_for(format, largest_magnitude(row));
    const auto once = decode(format, encode(format, row, tensor_scale, ScaleSearch::best), 256, tensor_scale);
    const auto twice = decode(format, encode(format, once, tensor_scale, ScaleSearch::best), 256, tensor_scale);
    EXPECT_EQ(once, twice) << format_name(format);
  }
}

double squared_error(FormatId format, const std::vector<float>& group, float tensor_scale, ScaleSearch search) {
  const auto decoded = decode(format, encode(format, group, tensor_scale, search), group.size(), tensor_scale);
  double error = 0.0;
  for (size_t k = 0; k < group.size(); k++) error += std::pow(double{group[k]} - decoded[k], 2);
  return error;
}

TEST(EncodeRow, BestIsNeverWorseThanPlainInAnyGroup) {
  for (FormatId format : kGrouped) {
    double plain_sum = 0.0, best_sum = 0.0;
    for (uint32_t seed = 0; seed < 3000; seed++) {
      const auto K = static_cast<size_t>(seed % 5 == 0 ? group_size(format) / 2 + 1 : group_size(format));
      // Magnitudes from the ends of the scales' ranges too; outliers; a tensor whose maximum is in another group.
      std::vector<float> group = random_row(K, seed, std::ldexp(1.0f, static_cast<int>(seed % 41) - 30));
      if (seed % 3 == 0) group[0] *= 8.0f;
      const float tensor_scale = tensor_scale_for(format, largest_magnitude(group) * (seed % 7 == 0 ? 3000.0f : 4.0f));
      const double plain = squared_error(format, group, tensor_scale, ScaleSearch::plain);
      const double best = squared_error(format, group, tensor_scale, ScaleSearch::best);
      ASSERT_LE(best, plain) << format_name(format) << " seed " << seed;
      if (largest_magnitude(group) < 1e-4f) continue;  // near the least scales it does not matter
      plain_sum += plain / std::pow(double{largest_magnitude(group)}, 2);
      best_sum += best / std::pow(double{largest_magnitude(group)}, 2);
    }
    const bool has_search = format != FormatId::q4_0 && format != FormatId::q4_1;
    EXPECT_EQ(best_sum < 0.99 * plain_sum, has_search) << format_name(format);
  }
}

// Against trying every scale that there is.
TEST(EncodeRow, BestIsBestOfAllScales) {
  for (FormatId format : {FormatId::mxfp4, FormatId::nvfp4}) {
    const int num_codes = format == FormatId::mxfp4 ? 255 : 127;
    for (uint32_t seed = 0; seed < 300; seed++) {
      std::vector<float> group = random_row(static_cast<size_t>(group_size(format)), seed, 3.0f);
      if (seed % 4 == 0) group[3] = 12.0f;
      double least = std::numeric_limits<double>::infinity();
      for (int code = 0; code < num_codes; code++) {
        const auto byte = static_cast<uint8_t>(code);
        const double scale = format == FormatId::mxfp4 ? Mxfp4::decode_scale(&byte) : Nvfp4::decode_scale(&byte);
        double error = 0.0;
        for (float x : group) {
          double nearest = std::numeric_limits<double>::infinity();
          for (float value : kE2m1Values) nearest = std::min(nearest, std::fabs(x - value * scale));
          error += nearest * nearest;
        }
        least = std::min(least, error);
      }
      ASSERT_NEAR(squared_error(format, group, 1.0f, ScaleSearch::best), least, least * 2e-4)
          << format_name(format) << " seed " << seed;
    }
  }
}

TEST(EncodeRow, ZerosDecodeToZeros) {
  for (FormatId format : kGrouped) {
    EXPECT_EQ(tensor_scale_for(format, 0.0f), 1.0f);
    for (ScaleSearch search : {ScaleSearch::plain, ScaleSearch::best}) {
      std::vector<float> row(300, 0.0f);
      row[299] = 1.0f;
      row[1] = -0.0f;
      const Encoded e = encode(format, row, 1.0f, search);
      visit_format(format, [&](auto f) {
        for (size_t i = 0; i < e.scales.size(); i += f.group_scale_bytes)
          EXPECT_TRUE(f.is_valid_scale(e.scales.data() + i)) << f.name;
      });
      const std::vector<float> decoded = decode(format, e, 300);
      for (size_t k = 0; k < 256; k++) EXPECT_EQ(decoded[k], 0.0f) << format_name(format);
      EXPECT_NEAR(decoded[299], 1.0f, 0.05f) << format_name(format);
    }
  }
}

TEST(EncodeRow, GroupsBelowTheLeastScaleBecomeZeros) {
  const std::vector<float> row(128, 1e-42f);
  for (FormatId format : kGrouped) {
    for (ScaleSearch search : {ScaleSearch::plain, ScaleSearch::best}) {
      const std::vector<float> decoded = decode(format, encode(format, row, 1.0f, search), 128);
      EXPECT_EQ(decoded, std::vector<float>(128, 0.0f)) << format_name(format);
    }
  }
}

TEST(EncodeRow, WhatIsNotFiniteIsAnInputError) {
  for (float value : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::quiet_NaN()}) {
    for (FormatId format : kGrouped) {
      std::vector<float> row(40, 1.0f);
      row[39] = value;
      EXPECT_THROW(encode(format, row), InputError) << format_name(format);
    }
    EXPECT_THROW(encode(FormatId::f32, {value}), InputError);
    EXPECT_THROW(encode(FormatId::bf16, {value}), InputError);
    EXPECT_THROW(encode(FormatId::nvfp4, {1.0f}, value), InputError);
  }
  EXPECT_THROW(encode(FormatId::nvfp4, {1.0f}, 0.0f), InputError);
}

TEST(EncodeQ8_0Group, GivesTheBestRowsBytes) {
  for (const float spread : {1e-9f, 1e-6f, 1.0f, 1e6f}) {
    for (const size_t K : {1, 5, 31, 32}) {
      for (uint32_t seed = 0; seed < 20; seed++) {
        const std::vector<float> group = random_row(K, seed, spread);
        const Encoded expected = encode(FormatId::q8_0, group, 1.0f, ScaleSearch::best);
        Encoded e{std::vector<uint8_t>(K, 0xEE), std::vector<uint8_t>(2, 0xEE)};
        encode_q8_0_group(group, e.codes.data(), e.scales.data());
        EXPECT_EQ(e.codes, expected.codes);
        EXPECT_EQ(e.scales, expected.scales);
      }
    }
  }
}

TEST(EncodeQ8_0Group, WhatItCannotHoldBecomesNan) {
  for (const float value : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY, 8.4e6f, -3e38f}) {
    std::vector<float> group = random_row(32, 3);
    group[30] = value;
    Encoded e{std::vector<uint8_t>(32, 0xEE), std::vector<uint8_t>(2, 0xEE)};
    encode_q8_0_group(group, e.codes.data(), e.scales.data());
    for (float x : decode(FormatId::q8_0, e, 32)) EXPECT_TRUE(std::isnan(x)) << value;
  }
}

TEST(EncodeRow, WhatIsTooLargeForTheFormatIsAnInputError) {
  for (FormatId format : {FormatId::f16, FormatId::q8_0, FormatId::q4_0, FormatId::q4_1, FormatId::nvfp4,
                          FormatId::fp4_half_32, FormatId::fp4_half_64, FormatId::fp4_half_128})
    EXPECT_THROW(encode(format, {1e9f, -1e9f}), InputError) << format_name(format);
  EXPECT_THROW(encode(FormatId::bf16, {std::numeric_limits<float>::max()}), InputError);
  EXPECT_NO_THROW(encode(FormatId::nvfp4, {2688.0f}));
  EXPECT_THROW(encode(FormatId::q6_k, {1.0f}), InputError);  // is only read
  EXPECT_THROW(encode(FormatId::nvfp4, {2800.0f}), InputError);
}

}  // namespace
}  // namespace nibble
