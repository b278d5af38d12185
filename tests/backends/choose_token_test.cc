// The choice of the next token on the device, against a plain one in double.
#include "backends/metal/choose_token.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "backends/metal_devices.h"
#include "backends/random_weights.h"

namespace nibble {
namespace {

// SamplingOptions' meaning (engine/sampler.h), without any of its haste.
int32_t plain_choice(const std::vector<float>& logits, const TokenChoice& choice, double draw) {
  std::vector<int32_t> order;
  for (size_t i = 0; i < logits.size(); i++)
    if (!std::isnan(logits[i])) order.push_back(static_cast<int32_t>(i));
  const auto logit = [&](int32_t token) { return logits[static_cast<size_t>(token)]; };
  std::ranges::sort(order, [&](int32_t a, int32_t b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; });
  if (choice.temperature == 0) return order[0];
  if (choice.top_k > 0 && choice.top_k < static_cast<int64_t>(order.size()))
    order.resize(static_cast<size_t>(choice.top_k));
  std::vector<double> weights;
  for (int32_t token : order)
    weights.push_back(std::exp((static_cast<double>(logit(token)) - logit(order[0])) / choice.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = weights[0];
  size_t num_kept = 1;
  while (num_kept < weights.size() && kept < choice.top_p * total && weights[num_kept] >= choice.min_p * weights[0])
    kept += weights[num_kept++];
  double above = 0;
  for (size_t i = 0; i + 1 < num_kept; i++) {
    above += weights[i];
    if (draw * kept < above) return order[i];
  }
  return order[num_kept - 1];
}

struct Chosen {
  std::vector<int32_t> tokens;
  int64_t num_sure;
  int32_t next;  // what the next step reads
};

// A choice for each of the draws, in one command buffer.
Chosen choose(MetalDevice& device, const std::vector<float>& logits, const TokenChoice& choice,
              const std::vector<double>& draws) {
  MetalKernels kernels(device);
  const auto row = device.make_buffer(logits.size() * sizeof(float)), next = device.make_buffer(sizeof(int32_t));
  std::ranges::copy(logits, row->as<float>());
  const auto N = static_cast<int64_t>(logits.size());
  EXPECT_TRUE(TokenChooser::knows(choice, N));
  TokenChooser chooser({{row.get(), 0}, 1, N, N, {next.get(), 0}}, device, kernels);
  chooser.prepare(choice, draws);
  device.begin();
  for (size_t i = 0; i < draws.size(); i++) chooser.encode(i);
  device.finish();
  Chosen chosen{.tokens = std::vector<int32_t>(draws.size())};
  chosen.num_sure = chooser.read(chosen.tokens);
  chosen.next = *next->as<int32_t>();
  return chosen;
}

// The tokens that it is sure of are right, in each order of lanes; returns how many of the draws that are.
int64_t expect_choices(const std::vector<float>& logits, const TokenChoice& choice, const std::vector<double>& draws) {
  int64_t num_sure = 0;
  std::vector<int32_t> first;
  for (const auto& device : devices_under_test()) {
    const Chosen chosen = choose(*device, logits, choice, draws);
    if (first.empty()) {
      first = chosen.tokens;
      num_sure = chosen.num_sure;
      for (int64_t i = 0; i < num_sure; i++) {
        const auto at = static_cast<size_t>(i);
        EXPECT_EQ(first[at], plain_choice(logits, choice, draws[at])) << "of " << logits.size() << " choice " << i;
      }
    }
    EXPECT_EQ(chosen.tokens, first);
    EXPECT_EQ(chosen.num_sure, num_sure);
    EXPECT_EQ(chosen.next, first.back());
  }
  return num_sure;
}

std::vector<float> scaled(std::vector<float> logits, float by) {
  for (float& logit : logits) logit *= by;
  return logits;
}

// Rows that are apart in memory get what each would get alone, and a choice counts only if that of every row does.
TEST(ChooseToken, RowsAreApart) {
  constexpr int64_t kRows = 3, kN = 2500, kStride = kN + 4;
  for (const TokenChoice& choice : {TokenChoice{}, {.temperature = 1, .top_k = 20}, {.temperature = 0.7f}}) {
    for (const auto& device : devices_under_test()) {
      const std::vector<double> draws = {0.1, 0.2, 0.35, 0.45, 0.55, 0.65};  // [2, rows]
      const auto logits = device->make_buffer(kRows * kStride * sizeof(float));
      const auto next = device->make_buffer(kRows * sizeof(int32_t));
      std::vector<int32_t> wanted(draws.size());
      int64_t num_sure = 2;
      for (int64_t m = 0; m < kRows; m++) {
        std::vector<float> row = scaled(random_activations(kN, static_cast<uint32_t>(m + 1)), 3);
        if (m == 2) std::ranges::fill(row, kNan);
        if (m == 2 && choice.top_k == 20) row[7] = 1;  // the others have a row that nobody can choose from
        std::ranges::copy(row, logits->as<float>() + m * kStride);
        for (size_t i = 0; i < 2; i++) {
          const size_t at = i * kRows + static_cast<size_t>(m);
          const Chosen alone = choose(*device, row, choice, {draws[at]});
          wanted[at] = alone.tokens[0];
          if (alone.num_sure == 0) num_sure = std::min(num_sure, static_cast<int64_t>(i));
        }
      }
      MetalKernels kernels(*device);
      TokenChooser chooser({{logits.get(), 0}, kRows, kStride, kN, {next.get(), 0}}, *device, kernels);
      chooser.prepare(choice, draws);
      device->begin();
      for (size_t i = 0; i < 2; i++) chooser.encode(i);
      device->finish();
      std::vector<int32_t> tokens(draws.size());
      EXPECT_EQ(chooser.read(tokens), num_sure);
      EXPECT_EQ(num_sure, choice.top_k == 20 ? 2 : 0);
      EXPECT_EQ(tokens, wanted);
      EXPECT_EQ(std::vector<int32_t>(next->as<int32_t>(), next->as<int32_t>() + kRows),
                std::vector<int32_t>(wanted.begin() + kRows, wanted.end()));
    }
  }
}

TEST(ChooseToken, TheBest) {
  for (int64_t N : {1, 2, 33, 1023, 1024, 1025, 9000})
    EXPECT_EQ(expect_choices(random_activations(N, static_cast<uint32_t>(N)), {}, {0.5}), 1) << N;
}

TEST(ChooseToken, OfEqualsTheLowerToken) {
  std::vector<float> logits(2100, -1.0f);
  for (size_t i : {1030, 40, 39, 2090}) logits[i] = 0.0f;
  logits[39] = -0.0f;  // as good as 0
  EXPECT_EQ(expect_choices(logits, {}, {0.5}), 1);
  EXPECT_EQ(plain_choice(logits, {}, 0.5), 39);
  EXPECT_EQ(expect_choices(logits, {.temperature = 0.01f, .top_k = 3}, {0.1, 0.5, 0.9}), 3);  // 39, 40, 1030
  EXPECT_EQ(expect_choices(std::vector<float>(70, 2.0f), {}, {0.5}), 1);
}

TEST(ChooseToken, NansAndInfinities) {
  EXPECT_EQ(expect_choices({kNan, -3, kNan, -2, -kInfinity}, {}, {0.5}), 1);
  EXPECT_EQ(expect_choices({kNan, -kInfinity, kNan}, {}, {0.5}), 1);
  EXPECT_EQ(expect_choices({1, kInfinity, kNan}, {}, {0.5}), 1);
  EXPECT_EQ(expect_choices({kNan, -3, kNan, -2, -kInfinity}, {.temperature = 1}, {0.1, 0.5, 0.9}), 3);
  // What the host has to say an error of, or to make something of.
  EXPECT_EQ(expect_choices({kNan, kNan}, {}, {0.5}), 0);
  EXPECT_EQ(expect_choices({kNan, kNan}, {.temperature = 1}, {0.5}), 0);
  EXPECT_EQ(expect_choices({1, kInfinity}, {.temperature = 1}, {0.5}), 0);
}

TEST(ChooseToken, DrawsFromMoreListsThanOneMergeTakes) {
  const std::vector<float> logits = scaled(random_activations(9000, 9000), 8);
  EXPECT_EQ(expect_choices(logits, {.temperature = 0.7f}, {0.2, 0.97}), 2);
}

// Every way to cut, with draws from one end to the other; all but a few are sure.
TEST(ChooseToken, Draws) {
  const std::vector<double> draws = {0, 0.03, 0.2, 0.41, 0.55, 0.72, 0.93, 0.99999};
  for (int64_t N : {1, 7, 130, 1500}) {
    const std::vector<float> logits = scaled(random_activations(N, static_cast<uint32_t>(N)), 8);
    for (const TokenChoice& choice : {TokenChoice{.temperature = 0.7f},
                                      {.temperature = 1.3f, .top_k = 5},
                                      {.temperature = 0.9f, .top_p = 0.8f},
                                      {.temperature = 1, .min_p = 0.1f},
                                      {.temperature = 1, .top_k = kCandidates, .top_p = 0.9f, .min_p = 0.02f},
                                      {.temperature = 1, .top_k = 9000},
                                      {.temperature = 1, .top_p = 0},
                                      {.temperature = 1, .min_p = 0.99f}}) {
      SCOPED_TRACE(fmt::format("N {} top_k {} top_p {} min_p {}", N, choice.top_k, choice.top_p, choice.min_p));
      EXPECT_GE(expect_choices(logits, choice, draws), 7);
    }
  }
}

TEST(ChooseToken, WhatIsTooCloseIsLeftToTheHost) {
  const std::vector<float> two = {1, 1};
  EXPECT_EQ(expect_choices(two, {.temperature = 1}, {0.4, 0.50001, 0.6}), 1);
  EXPECT_EQ(expect_choices(two, {.temperature = 1}, {0.6, 0.49999}), 1);
  EXPECT_EQ(expect_choices(two, {.temperature = 1, .top_p = 0.5f}, {0.4}), 0);    // is the first one enough?
  EXPECT_EQ(expect_choices(two, {.temperature = 1, .min_p = 1}, {0.4}), 0);       // is the second one good enough?
  EXPECT_EQ(expect_choices(two, {.temperature = 1, .top_p = 0.4f}, {0.9}), 1);    // the first
  EXPECT_EQ(expect_choices(two, {.temperature = 1, .top_p = 0.999f}, {0.9}), 1);  // the second
  // 256 equal ones, of which 128 are candidates: what is drawn from the others, the host has to know.
  const std::vector<float> many(256, 0.5f);
  EXPECT_EQ(expect_choices(many, {.temperature = 1}, {0.001, 0.4, 0.498, 0.51}), 3);
  EXPECT_EQ(expect_choices(many, {.temperature = 1, .top_p = 0.9f}, {0.1}), 0);
  EXPECT_EQ(expect_choices(many, {.temperature = 1, .top_p = 0.3f}, {0.1}), 1);
}

TEST(ChooseToken, WhatItDoesNotKnow) {
  EXPECT_TRUE(TokenChooser::knows({.temperature = 1, .top_k = 128}, 50000));
  EXPECT_FALSE(TokenChooser::knows({.temperature = 1, .top_k = 129}, 50000));
  EXPECT_TRUE(TokenChooser::knows({.temperature = 0, .top_k = 129}, 50000));
  EXPECT_TRUE(TokenChooser::knows({.temperature = 1, .top_k = 50000}, 50000));
}

}  // namespace
}  // namespace nibble
