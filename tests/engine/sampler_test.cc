#include "engine/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include "checkpoint/test_files.h"

namespace nibble {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Logits = std::vector<float>;

// How often each token comes in `count` draws.
std::map<int32_t, int> draw(const SamplingOptions& options, const Logits& logits, int count = 20000) {
  Sampler sampler(options, static_cast<int64_t>(logits.size()));
  std::map<int32_t, int> counts;
  for (int i = 0; i < count; i++) counts[sampler.sample(logits)]++;
  return counts;
}

// Logits whose softmax at temperature 1 is `probabilities`.
Logits logits_of(const std::vector<double>& probabilities) {
  Logits logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(Sampler, TemperatureZeroTakesTheBestAndTheLowerOfTwo) {
  Sampler sampler({}, 5);
  EXPECT_EQ(sampler.sample(Logits{0, 3, -1, 3, 2}), 1);
  EXPECT_EQ(sampler.sample(Logits{-5, -4, -3, -2, -1}), 4);
  EXPECT_EQ(sampler.sample(Logits{0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(sampler.sample(Logits{-kInfinity, -kInfinity, -7, -kInfinity, -kInfinity}), 2);
  EXPECT_EQ(sampler.sample(Logits{0, kInfinity, 1, 2, 3}), 1);
}

TEST(Sampler, NansAreNeverChosen) {
  for (float temperature : {0.0f, 1.0f, 100.0f}) {
    Sampler sampler({.temperature = temperature, .seed = 1}, 4);
    for (int i = 0; i < 200; i++) {
      const int32_t token = sampler.sample(Logits{kNan, 1, kNan, 2});
      EXPECT_TRUE(token == 1 || token == 3) << token;
    }
  }
  Sampler sampler({}, 3);
  expect_parts(error_of<InputError>([&] { sampler.sample(Logits{kNan, kNan, kNan}); }), {"all 3 logits are NaN"});
}

TEST(Sampler, DrawsByProbability) {
  const std::vector<double> probabilities = {0.5, 0.05, 0.3, 0.15};
  const auto counts = draw({.temperature = 1, .seed = 3}, logits_of(probabilities));
  for (const auto& [token, count] : counts)  // five deviations of a binomial
    EXPECT_NEAR(count, 20000 * probabilities[static_cast<size_t>(token)], 360) << token;
  EXPECT_EQ(counts.size(), 4u);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  const Logits logits = {0, 1};  // odds of e^(1/t)
  EXPECT_NEAR(draw({.temperature = 0.5f, .seed = 5}, logits)[1] / 20000.0, 1 / (1 + std::exp(-2.0)), 0.02);
  EXPECT_NEAR(draw({.temperature = 2, .seed = 5}, logits)[1] / 20000.0, 1 / (1 + std::exp(-0.5)), 0.02);
  EXPECT_EQ(draw({.temperature = 1e-30f, .seed = 5}, logits)[1], 20000);
}

TEST(Sampler, TopKKeepsTheKBest) {
  const Logits logits = {1, 4, 2, 3, 4};
  auto counts = draw({.temperature = 1, .top_k = 3, .seed = 7}, logits);
  EXPECT_EQ(counts.size(), 3u);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[4], 0);
  EXPECT_GT(counts[3], 0);
  EXPECT_EQ(draw({.temperature = 100, .top_k = 1, .seed = 7}, logits), (std::map<int32_t, int>{{1, 20000}}));
  EXPECT_EQ(draw({.temperature = 100, .top_k = 1000, .seed = 7}, logits).size(), 5u);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  const Logits logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0.0f, .seed = 9}, logits).size(), 1u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0.39f, .seed = 9}, logits).size(), 1u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0.41f, .seed = 9}, logits).size(), 2u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0.69f, .seed = 9}, logits).size(), 2u);
  const auto counts = draw({.temperature = 1, .top_p = 0.71f, .seed = 9}, logits);
  EXPECT_EQ(counts.size(), 3u);
  EXPECT_FALSE(counts.contains(0));
  EXPECT_NEAR(counts.at(1), 20000 * 0.4 / 0.9, 360);  // what is kept is scaled up
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1.0f, .seed = 9}, logits).size(), 4u);
}

TEST(Sampler, MinPIsAShareOfTheBest) {
  const Logits logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(draw({.temperature = 1, .min_p = 0.24f, .seed = 11}, logits).size(), 4u);
  EXPECT_EQ(draw({.temperature = 1, .min_p = 0.26f, .seed = 11}, logits).size(), 3u);
  EXPECT_EQ(draw({.temperature = 1, .min_p = 0.51f, .seed = 11}, logits).size(), 2u);
  EXPECT_EQ(draw({.temperature = 1, .min_p = 1.0f, .seed = 11}, logits).size(), 1u);
}

TEST(Sampler, PenaltyPushesSeenTokensDown) {
  Sampler sampler({.repetition_penalty = 2}, 3);
  EXPECT_EQ(sampler.sample(Logits{3, 2, -1}), 0);
  sampler.accept(0);
  EXPECT_EQ(sampler.sample(Logits{3, 2, -1}), 1);       // 3 / 2 is below 2
  EXPECT_EQ(sampler.sample(Logits{5, 2, -1}), 0);       // 5 / 2 is not
  EXPECT_EQ(sampler.sample(Logits{-1, -3, -1.5f}), 2);  // -1 * 2 is below -1.5
  sampler.accept(0);                                    // once is enough
  EXPECT_EQ(sampler.sample(Logits{5, 2, -1}), 0);

  Sampler lifting({.repetition_penalty = 0.5f}, 2);
  lifting.accept(1);
  EXPECT_EQ(lifting.sample(Logits{3, 2}), 1);
}

TEST(Sampler, ASeedRepeatsItself) {
  const Logits logits(50, 1.0f);
  const auto tokens = [&](std::optional<uint64_t> seed) {
    Sampler sampler({.temperature = 1, .seed = seed}, 50);
    std::vector<int32_t> drawn;
    for (int i = 0; i < 40; i++) drawn.push_back(sampler.sample(logits));
    return drawn;
  };
  EXPECT_EQ(tokens(123), tokens(123));
  EXPECT_NE(tokens(123), tokens(124));
  EXPECT_NE(tokens({}), tokens({}));
}

TEST(Sampler, RangesAreChecked) {
  const auto message = [](const SamplingOptions& options) { return error_of([&] { Sampler sampler(options, 4); }); };
  expect_parts(message({.temperature = -1}), {"temperature", "is -1", "from 0 to 100"});
  expect_parts(message({.temperature = kNan}), {"temperature", "is nan", "from 0 to 100"});
  expect_parts(message({.temperature = 101}), {"temperature", "is 101", "from 0 to 100"});
  expect_parts(message({.top_k = -3}), {"top_k", "is -3", "from 0 to"});
  expect_parts(message({.top_p = 1.5f}), {"top_p", "is 1.5", "from 0 to 1"});
  expect_parts(message({.top_p = -0.5f}), {"top_p", "is -0.5", "from 0 to 1"});
  expect_parts(message({.min_p = 2}), {"min_p", "is 2", "from 0 to 1"});
  expect_parts(message({.repetition_penalty = 0}), {"repetition_penalty", "is 0", "from 0.01 to 100"});
  expect_parts(message({.repetition_penalty = kInfinity}), {"repetition_penalty", "is inf", "from 0.01 to 100"});
}

}  // namespace
}  // namespace nibble
