// The list of formats, sizes of rows, and the value of a weight by its definition.
#include "formats/formats.h"

#include <algorithm>
#include <bit>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble {
namespace {

TEST(VisitFormat, ReachesEveryFormatByItsId) {
  std::set<std::string> names;
  for (FormatId id : kAllFormatIds) {
    EXPECT_EQ(visit_format(id, [](auto format) { return decltype(format)::id; }), id);
    int visited = 0;
    visit_format(id, [&](auto) { visited++; });  // void
    EXPECT_EQ(visited, 1);
    names.insert(std::string(format_name(id)));
  }
  EXPECT_EQ(names.size(), kAllFormatIds.size());
}

TEST(VisitFormat, AnUnknownNumberIsAnInputError) {
  EXPECT_THROW(format_name(static_cast<FormatId>(200)), InputError);
  EXPECT_THROW(visit_format(static_cast<FormatId>(200), [](auto) {}), InputError);
}

TEST(Formats, BytesOfARow) {
  struct Case {
    FormatId format;
    int64_t K, codes, scales;
  };
  for (const Case& c :
       std::initializer_list<Case>{{FormatId::f32, 3, 12, 0},          {FormatId::f16, 3, 6, 0},
                                   {FormatId::bf16, 3, 6, 0},          {FormatId::q8_0, 33, 33, 4},
                                   {FormatId::q4_0, 33, 17, 4},        {FormatId::q4_1, 33, 17, 8},
                                   {FormatId::q5_0, 33, 21, 4},        {FormatId::q5_1, 32, 20, 4},
                                   {FormatId::q4_k, 256, 128, 16},     {FormatId::q5_k, 512, 320, 32},
                                   {FormatId::q6_k, 257, 193, 36},     {FormatId::iq4_nl, 33, 17, 4},
                                   {FormatId::mxfp4, 32, 16, 1},       {FormatId::mxfp4, 33, 17, 2},
                                   {FormatId::nvfp4, 1, 1, 1},         {FormatId::nvfp4, 17, 9, 2},
                                   {FormatId::nvfp4, 2048, 1024, 128}, {FormatId::fp4_half_32, 65, 33, 6},
                                   {FormatId::fp4_half_64, 65, 33, 4}, {FormatId::fp4_half_128, 65, 33, 2},
                                   {FormatId::fp8, 33, 33, 0},         {FormatId::fp8_128, 129, 129, 8},
                                   {FormatId::affine4_32, 33, 17, 16}, {FormatId::affine8_128, 129, 129, 16},
                                   {FormatId::mxfp4, 0, 0, 0}}) {
    EXPECT_EQ(code_bytes(c.format, c.K), c.codes) << format_name(c.format) << " " << c.K;
    EXPECT_EQ(scale_bytes(c.format, c.K), c.scales) << format_name(c.format) << " " << c.K;
  }
}

// 40 weights: two groups of 32 (the second short), three of 16.
TEST(Formats, LowNibbleIsTheEvenK) {
  uint8_t codes[20] = {0x21, 0x43};
  codes[8] = 0x07;   // k = 16
  codes[16] = 0xA0;  // k = 33
  const uint8_t mxfp4[2] = {128, 126};
  EXPECT_EQ(Mxfp4::decode(codes, mxfp4, 0), 1.0f);
  EXPECT_EQ(Mxfp4::decode(codes, mxfp4, 1), 2.0f);
  EXPECT_EQ(Mxfp4::decode(codes, mxfp4, 2), 3.0f);
  EXPECT_EQ(Mxfp4::decode(codes, mxfp4, 3), 4.0f);
  EXPECT_EQ(Mxfp4::decode(codes, mxfp4, 33), -0.5f);
  const uint8_t nvfp4[3] = {0x38, 0x01, 0x7E};  // 1, 2^-9, 448
  EXPECT_EQ(Nvfp4::decode(codes, nvfp4, 3), 2.0f);
  EXPECT_EQ(Nvfp4::decode(codes, nvfp4, 16), 6 * 0x1p-9f);
  EXPECT_EQ(Nvfp4::decode(codes, nvfp4, 33), -448.0f);
  const uint8_t halves[4] = {0x00, 0x3E, 0x00, 0xC0};  // 1.5, -2
  EXPECT_EQ(Fp4Half<32>::decode(codes, halves, 3), 3.0f);
  EXPECT_EQ(Fp4Half<32>::decode(codes, halves, 33), 2.0f);
  EXPECT_EQ(Q4_0::decode(codes, halves, 0), (1 - 8) * 1.5f);
  EXPECT_EQ(Q4_0::decode(codes, halves, 33), (10 - 8) * -2.0f);
  EXPECT_EQ(Q4_1::decode(codes, halves, 1), 2 * 1.5f - 2.0f);
  const uint8_t bytes[2] = {0x80, 0x7F};
  EXPECT_EQ(Q8_0::decode(bytes, halves, 0), -128 * 1.5f);
  EXPECT_EQ(Q8_0::decode(bytes, halves, 1), 127 * 1.5f);
}

TEST(Formats, Fp8HasFloatScales) {
  const uint8_t codes[2] = {0x38, 0xC4};  // 1, -3
  EXPECT_EQ(Fp8::decode(codes, nullptr, 1), -3.0f);
  uint8_t row[129] = {};
  row[127] = 0x38;
  row[128] = 0xC4;
  const float scales[2] = {0.75f, -2.5f};
  const auto* bytes = reinterpret_cast<const uint8_t*>(scales);
  EXPECT_EQ(Fp8Scaled::decode(row, bytes, 127), 0.75f);
  EXPECT_EQ(Fp8Scaled::decode(row, bytes, 128), 7.5f);
  EXPECT_TRUE(Fp8Scaled::is_valid_scale(bytes));
  EXPECT_FALSE(Fp8Scaled::is_valid_scale(bytes + 4));
  for (int code = 0; code < 256; code++)
    EXPECT_EQ(Fp8::is_valid_code(static_cast<uint8_t>(code)), code != 0x7F && code != 0xFF);
}

TEST(Formats, AffineHasAScaleAndABias) {
  const float pairs[4] = {2.0f, -1.0f, -0.5f, 4.0f};
  const auto* scales = reinterpret_cast<const uint8_t*>(pairs);
  uint8_t codes[33] = {0x5A};
  codes[16] = 0xF0;  // 4 bits: k = 32 and 33
  codes[32] = 200;
  EXPECT_EQ((Affine<4, 32>::decode(codes, scales, 0)), 19.0f);
  EXPECT_EQ((Affine<4, 32>::decode(codes, scales, 1)), 9.0f);
  EXPECT_EQ((Affine<4, 32>::decode(codes, scales, 33)), -3.5f);
  EXPECT_EQ((Affine<8, 32>::decode(codes, scales, 0)), 179.0f);
  EXPECT_EQ((Affine<8, 32>::decode(codes, scales, 32)), -96.0f);
  EXPECT_EQ((Affine<8, 64>::decode(codes, scales, 32)), 399.0f);
  EXPECT_TRUE((Affine<8, 64>::is_valid_scale(scales)));  // may be negative
  const float infinite[2] = {1.0f, INFINITY};
  EXPECT_FALSE((Affine<8, 64>::is_valid_scale(reinterpret_cast<const uint8_t*>(infinite))));
}

TEST(Formats, AWholeGroupDecodesAsItsWeightsDo) {
  std::mt19937 random(1);
  int with_groups = 0;
  for (FormatId id : kAllFormatIds) {
    visit_format(id, [&](auto format) {
      using Format = decltype(format);
      if constexpr (requires { Format::decode_group(nullptr, nullptr, nullptr); }) {
        with_groups++;
        std::vector<uint8_t> codes(static_cast<size_t>(code_bytes<Format>(Format::group_size)));
        std::vector<uint8_t> scales(Format::group_scale_bytes);
        for (int run = 0; run < 100; run++) {
          for (uint8_t& byte : codes) byte = static_cast<uint8_t>(random());
          do {
            for (uint8_t& byte : scales) byte = static_cast<uint8_t>(random());
          } while (!Format::is_valid_scale(scales.data()));
          std::vector<float> values(Format::group_size);
          Format::decode_group(codes.data(), scales.data(), values.data());
          for (int k = 0; k < Format::group_size; k++)
            ASSERT_EQ(std::bit_cast<uint32_t>(values[static_cast<size_t>(k)]),
                      std::bit_cast<uint32_t>(Format::decode(codes.data(), scales.data(), k)))
                << format_name(id) << " " << k;
        }
      }
    });
  }
  EXPECT_EQ(with_groups, 11);
}

template <int kBits>
void expect_packed_codes() {
  std::mt19937 random(kBits);
  uint8_t unpacked[40], codes[40 * kBits / 8], one_by_one[sizeof codes] = {}, again[40];
  for (int k = 0; k < 40; k++) {
    unpacked[k] = static_cast<uint8_t>(random() & ((1u << kBits) - 1));
    set_code<kBits>(one_by_one, k, unpacked[k]);
  }
  pack_codes<kBits>(unpacked, 40, codes);
  unpack_codes<kBits>(codes, 40, again);
  EXPECT_TRUE(std::ranges::equal(codes, one_by_one)) << kBits;
  EXPECT_TRUE(std::ranges::equal(again, unpacked)) << kBits;
}

TEST(Formats, CodesOfAGroupArePackedAtOnce) {
  expect_packed_codes<4>();
  expect_packed_codes<5>();
  expect_packed_codes<6>();
}

TEST(Formats, ValidScales) {
  for (int code = 0; code < 256; code++) {
    const auto byte = static_cast<uint8_t>(code);
    EXPECT_EQ(Mxfp4::is_valid_scale(&byte), code != 255);
    EXPECT_EQ(Nvfp4::is_valid_scale(&byte), code < 127);  // neither NaN nor negative
  }
  const uint8_t finite[4] = {0xFF, 0x7B, 0x00, 0x80}, infinite[4] = {0x00, 0x3C, 0x00, 0x7C};
  EXPECT_TRUE(Q4_1::is_valid_scale(finite));
  EXPECT_FALSE(Q4_1::is_valid_scale(infinite));  // the minimum
  EXPECT_TRUE(Q4_0::is_valid_scale(infinite));
  EXPECT_FALSE(Fp4Half<64>::is_valid_scale(infinite + 2));
}

}  // namespace
}  // namespace nibble
