#include "weights/random_source.h"

#include <cmath>

#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

TEST(RandomSource, WeightsAreValidAndOfASensibleSize) {
  for (FormatId format : {FormatId::f32, FormatId::f16, FormatId::bf16, FormatId::q8_0, FormatId::q4_0, FormatId::q4_1,
                          FormatId::mxfp4, FormatId::nvfp4, FormatId::fp4_half_32, FormatId::fp4_half_128}) {
    for (int64_t K : {100, 512, 2048}) {
      const auto source = make_random_source({.format = [&](const MatrixRequest&) { return format; }});
      const MatrixRequest request{.name = {"x", ""}, .E = 2, .N = 64, .K = K};
      const CanonicalWeight weight = source->read(request);
      EXPECT_EQ(source->describe(request).bytes, static_cast<int64_t>(weight.codes.size() + weight.scales.size()));
      double sum = 0.0, squares = 0.0;
      const std::vector<float> values = decoded(weight);
      for (float value : values) {
        sum += value;
        squares += double{value} * value;
      }
      const double variance = squares / static_cast<double>(values.size()) * static_cast<double>(K);
      EXPECT_GT(variance, 0.25) << format_name(format) << " " << K;
      EXPECT_LT(variance, 4.0) << format_name(format) << " " << K;
      EXPECT_LT(std::fabs(sum) / static_cast<double>(values.size()), 0.15 / std::sqrt(K)) << format_name(format);
    }
  }
}

TEST(RandomSource, SameSeedAndNameGiveTheSameWeights) {
  const auto read = [](uint64_t seed, const std::string& name) {
    const auto source =
        make_random_source({.seed = seed, .format = [](const MatrixRequest&) { return FormatId::nvfp4; }});
    source->read({.name = {"other", ""}, .N = 1, .K = 16});
    return decoded(source->read({.name = {name, ""}, .N = 4, .K = 64}));
  };
  EXPECT_EQ(read(1, "x"), read(1, "x"));
  EXPECT_NE(read(1, "x"), read(2, "x"));
  EXPECT_NE(read(1, "x"), read(1, "y"));
  const std::vector<float> x = read(1, "x");  // on every machine
  EXPECT_FLOAT_EQ(x[0], 0.106655285f);
  EXPECT_EQ(x[1], 0.0f);
  EXPECT_FLOAT_EQ(x[2], -0.15998293f);
}

TEST(RandomSource, NormsAreNearOneAndOptionalVectorsAreThereIfWanted) {
  const auto format = [](const MatrixRequest&) { return FormatId::mxfp4; };
  const auto source = make_random_source({.format = format});
  for (float value : source->read_vector({.name = {"model.norm.weight", ""}, .size = 50})) EXPECT_NEAR(value, 1, 0.125);
  for (float value : source->read_vector({.name = {"q_proj.bias", ""}, .size = 50})) EXPECT_NEAR(value, 0, 0.125);
  EXPECT_FALSE(source->has_vector({"q_proj.bias", ""}));
  const auto biased =
      make_random_source({.format = format, .has_optional_vector = [](const TensorName&) { return true; }});
  EXPECT_TRUE(biased->has_vector({"q_proj.bias", ""}));
}

}  // namespace
}  // namespace nibble
