// The list of formats, sizes of rows, and the value of a weight by its definition.
#include "formats/formats.h"

#include <set>
#include <string>

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
