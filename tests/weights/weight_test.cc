#include "weights/weight.h"

#include <limits>

#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// E experts of N rows of 32 NVFP4 weights; every code is 1.0, scales are 1, so each row shows its tensor scale.
struct Nvfp4Ones {
  Nvfp4Ones(int64_t E, int64_t N, std::vector<float> tensor_scale)
      : codes(static_cast<size_t>(E * N * 16), 0x22),
        scales(static_cast<size_t>(E * N * 2), 0x38),
        weight{.format = FormatId::nvfp4,
               .E = E,
               .N = N,
               .K = 32,
               .codes = codes,
               .scales = scales,
               .parts = {{0, std::move(tensor_scale)}}} {}
  Bytes codes, scales;
  CanonicalWeight weight;
};

TEST(CanonicalRows, EachPartHasItsTensorScaleForEachExpert) {
  Nvfp4Ones all(2, 6, {2.0f, 3.0f});
  all.weight.parts.push_back({3, {5.0f, 7.0f}});
  all.weight.parts.push_back({4, {11.0f, 13.0f}});
  check_weight(all.weight, "all");
  const std::vector<float> values = decoded(all.weight);
  const std::vector<float> expected = {2, 2, 2, 5, 11, 11, 3, 3, 3, 7, 13, 13};
  for (size_t row = 0; row < expected.size(); row++)
    for (size_t k = 0; k < 32; k++) EXPECT_EQ(values[row * 32 + k], expected[row]) << row;
}

TEST(CheckWeight, NamesTheFault) {
  const auto fault = [](const CanonicalWeight& weight) {
    return input_error([&] { check_weight(weight, "model: tensor x"); });
  };
  Nvfp4Ones good(1, 2, {0.5f});
  EXPECT_EQ(fault(good.weight), "");

  Nvfp4Ones damaged(1, 2, {0.5f});
  damaged.scales[3] = 0x7F;
  EXPECT_EQ(fault(damaged.weight),
            "model: tensor x: scale 3 is 0x7f, which is NaN, infinite or negative: not a scale of NVFP4; the file is "
            "damaged or in another format");
  damaged.scales[3] = 0xB8;
  EXPECT_NE(fault(damaged.weight).find("scale 3 is 0xb8"), std::string::npos);

  CanonicalWeight shorter = good.weight;
  shorter.codes = shorter.codes.first(31);
  EXPECT_EQ(fault(shorter), "model: tensor x: 31 bytes of codes, 32 expected for NVFP4 of shape [1, 2, 32]");
  shorter = good.weight;
  shorter.scales = {};
  EXPECT_EQ(fault(shorter), "model: tensor x: 0 bytes of scales, 4 expected for NVFP4 of shape [1, 2, 32]");

  CanonicalWeight without_scale = good.weight;
  without_scale.parts[0].tensor_scale[0] = kNaN;
  EXPECT_EQ(fault(without_scale),
            "model: tensor x: the tensor scale of rows from 0 on is nan, a finite number expected");

  const Bytes codes(16, 0), infinite_half = {0x00, 0x7C}, nan_exponent = {255};
  const CanonicalWeight q4_0{.format = FormatId::q4_0,
                             .E = 1,
                             .N = 1,
                             .K = 32,
                             .codes = codes,
                             .scales = infinite_half,
                             .parts = {{0, {1.0f}}}};
  EXPECT_NE(fault(q4_0).find("scale 0 is 0x7c00"), std::string::npos);
  const CanonicalWeight mxfp4{.format = FormatId::mxfp4,
                              .E = 1,
                              .N = 1,
                              .K = 32,
                              .codes = codes,
                              .scales = nan_exponent,
                              .parts = {{0, {1.0f}}}};
  EXPECT_NE(fault(mxfp4).find("scale 0 is 0xff"), std::string::npos);
}

}  // namespace
}  // namespace nibble
