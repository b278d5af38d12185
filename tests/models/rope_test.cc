#include "models/rope.h"

#include <cmath>

#include <gtest/gtest.h>

namespace nibble {
namespace {

void expect_frequencies(const RopeParameters& p, const std::vector<double>& expected) {
  const Rotation rotation = make_rotation(p);
  ASSERT_EQ(rotation.inv_freq.size(), expected.size());
  for (size_t i = 0; i < expected.size(); i++)
    EXPECT_NEAR(rotation.inv_freq[i] / expected[i], 1, 1e-6) << "pair " << i << ": " << rotation.inv_freq[i];
}

// theta 10000 and 8 dimensions: the frequencies are 1, 0.1, 0.01, 0.001, the wavelengths 2π, 20π, 200π, 2000π.
const RopeParameters kPlain{.theta = 10000, .rotary_dim = 8};

TEST(Rope, Plain) {
  expect_frequencies(kPlain, {1, 0.1, 0.01, 0.001});
  EXPECT_EQ(make_rotation(kPlain).scale, 1);
  expect_frequencies({.theta = 500000, .rotary_dim = 2}, {1});
  expect_frequencies({.theta = 1e6, .rotary_dim = 6}, {1, 0.01, 0.0001});
  expect_frequencies({.theta = 10000, .rotary_dim = 0}, {});
}

TEST(Rope, Linear) {
  RopeParameters p = kPlain;
  p.scaling = RopeScaling::linear;
  p.factor = 4;
  expect_frequencies(p, {0.25, 0.025, 0.0025, 0.00025});
  EXPECT_EQ(make_rotation(p).scale, 1);
}

TEST(Rope, Llama3) {
  RopeParameters p = kPlain;
  p.scaling = RopeScaling::llama3;
  p.factor = 8;
  p.original_max_position_embeddings = 1000;
  p.low_freq_factor = 1;
  p.high_freq_factor = 4;
  // Wavelengths 6.28 and 62.8 are below 1000 / 4: kept. 6283 is above 1000 / 1: divided by 8. 628.3 lies between: the
  // share (1000 / 628.3185 - 1) / 3 = 0.19718 is kept.
  const double keep = (1000 / (200 * M_PI) - 1) / 3;
  EXPECT_NEAR(keep, 0.19718, 1e-5);
  expect_frequencies(p, {1, 0.1, 0.01 * (keep + (1 - keep) / 8), 0.000125});
  EXPECT_EQ(make_rotation(p).scale, 1);
}

TEST(Rope, Yarn) {
  RopeParameters p = kPlain;
  p.scaling = RopeScaling::yarn;
  p.factor = 4;
  p.original_max_position_embeddings = 1000;
  // Dimension of 32 turns: 8 ln(1000 / 64π) / (2 ln 10000) = 0.697, of one turn: 2.202. Whole: 0 and 3. The ramp over
  // the pairs 0 … 3 is 0, 1/3, 2/3, 1, and where it is 1 the frequency is divided by 4.
  const auto blend = [](double f, double ramp) { return f * (1 - ramp) + f / 4 * ramp; };
  expect_frequencies(p, {1, blend(0.1, 1 / 3.0), blend(0.01, 2 / 3.0), 0.00025});
  EXPECT_FLOAT_EQ(make_rotation(p).scale, static_cast<float>(0.1 * std::log(4) + 1));

  p.truncate = false;
  const double low = 8 * std::log(1000 / (32 * 2 * M_PI)) / (2 * std::log(10000)),
               high = 8 * std::log(1000 / (2 * M_PI)) / (2 * std::log(10000));
  EXPECT_NEAR(low, 0.697, 1e-3);
  EXPECT_NEAR(high, 2.202, 1e-3);
  expect_frequencies(p, {1, blend(0.1, (1 - low) / (high - low)), blend(0.01, (2 - low) / (high - low)), 0.00025});

  p.attention_factor = 1.5;
  EXPECT_EQ(make_rotation(p).scale, 1.5f);
}

TEST(Rope, YarnsRampStaysWithinTheDimensions) {
  RopeParameters p = kPlain;
  p.scaling = RopeScaling::yarn;
  p.factor = 2;
  p.original_max_position_embeddings = 1e9;  // all dimensions turn often: nothing is divided
  expect_frequencies(p, {1, 0.1, 0.01, 0.001});
  p.original_max_position_embeddings = 1;  // none turns once: both ends are 0, and only pair 0 is not beyond
  expect_frequencies(p, {1, 0.05, 0.005, 0.0005});
  p.factor = 0.5;  // below 1 the attention factor stays 1
  EXPECT_EQ(make_rotation(p).scale, 1);
}

TEST(Rope, ScalingsHaveTheNamesOfTheConfigurations) {
  EXPECT_EQ(rope_scaling_name(RopeScaling::none), "default");
  EXPECT_EQ(rope_scaling_name(RopeScaling::linear), "linear");
  EXPECT_EQ(rope_scaling_name(RopeScaling::llama3), "llama3");
  EXPECT_EQ(rope_scaling_name(RopeScaling::yarn), "yarn");
}

// What a GGUF file of that model has: the plain frequency over the scaled one, as float32.
std::vector<float> divisors_of(RopeParameters p) {
  const Rotation scaled = make_rotation(p);
  p.scaling = RopeScaling::none;
  const Rotation plain = make_rotation(p);
  std::vector<float> divisors;
  for (size_t i = 0; i < plain.inv_freq.size(); i++) divisors.push_back(plain.inv_freq[i] / scaled.inv_freq[i]);
  return divisors;
}

TEST(Rope, Llama3IsFoundInItsDivisors) {
  for (const auto& [factor, original, dim] : {std::tuple{8.0, 8192, 128}, {32.0, 8192, 64}, {16.0, 32, 24}}) {
    const RopeParameters plain{.theta = 500000, .rotary_dim = dim};
    RopeParameters scaled = plain;
    scaled.scaling = RopeScaling::llama3;
    scaled.factor = factor;
    scaled.original_max_position_embeddings = original;
    const auto found = find_llama3_scaling(plain, divisors_of(scaled));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->scaling, RopeScaling::llama3);
    EXPECT_NEAR(found->factor, factor, 1e-4);
    const Rotation a = make_rotation(*found), b = make_rotation(scaled);
    for (size_t i = 0; i < a.inv_freq.size(); i++) EXPECT_FLOAT_EQ(a.inv_freq[i], b.inv_freq[i]);
    if (dim > 32) {
      EXPECT_EQ(found->original_max_position_embeddings, original);
    }
  }
}

TEST(Rope, OtherDivisorsAreNoLlama3) {
  const RopeParameters plain{.theta = 500000, .rotary_dim = 16};
  EXPECT_FALSE(find_llama3_scaling(plain, std::vector<float>{1, 2, 1, 2, 1, 2, 1, 2}));
  EXPECT_FALSE(find_llama3_scaling(plain, std::vector<float>{4, 4, 4, 4, 4, 4, 4, 8}));
}

}  // namespace
}  // namespace nibble
