// Several sequences that a backend decodes some steps at a time get the tokens that the host samples step by step.
#include "checkpoint/test_files.h"
#include "engine/batch.h"
#include "engine/sampler.h"
#include "goldens.h"
#include "small_shapes.h"

namespace nibble {
namespace {

constexpr int64_t kSequences = 3, kSteps = 8;
const std::vector<int32_t> kNumbers = {2, 0, 1};
const std::vector<int32_t> kFirst = {5, 60, 33};

// Prompts of unlike lengths.
void fill(Batch& batch) {
  batch.truncate(0);
  for (int32_t s = 0; s < kSequences; s++)
    batch.prefill(std::vector<int32_t>(static_cast<size_t>(4 * s + 1), 7 + s), s);
}

Engine small_engine(const std::string& shape) {
  return {random_model(small_shape(shape), published_formats(FormatId::mxfp4)),
          {.backend = {.name = "metal", .num_threads = 2}, .max_len = 48, .num_sequences = kSequences}};
}

std::vector<int32_t> on_the_host(Batch& batch, Sampler& sampler) {
  std::vector<int32_t> tokens = kFirst, chosen;
  for (int64_t i = 0; i < kSteps; i++) {
    const std::span<const float> logits = batch.extend(tokens, kNumbers);
    const size_t width = logits.size() / tokens.size();
    for (size_t m = 0; m < tokens.size(); m++) tokens[m] = sampler.sample(logits.subspan(m * width, width));
    chosen.insert(chosen.end(), tokens.begin(), tokens.end());
  }
  return chosen;
}

// Dense; experts with windows (of 9 positions) and sinks; experts with latent attention.
TEST(BatchAhead, GivesTheTokensOfTheHost) {
  for (const char* shape : {"llama-3.1-8b", "gpt-oss-20b", "glm-4.7-flash"}) {
    Engine engine = small_engine(shape);
    Batch batch(engine);
    for (const SamplingOptions& options : {SamplingOptions{}, {.temperature = 1, .top_k = 20, .seed = 2}}) {
      SCOPED_TRACE(fmt::format("{} temperature {}", shape, options.temperature));
      Sampler host(options, 67), device(options, 67);
      fill(batch);
      const std::vector<int32_t> wanted = on_the_host(batch, host);
      const std::vector<float> next = [&] {
        const auto logits = batch.extend(std::span(wanted).last(kSequences), kNumbers);
        return std::vector<float>(logits.begin(), logits.end());
      }();

      fill(batch);
      ASSERT_EQ(batch.max_ahead(kNumbers), kSteps);
      std::vector<int32_t> chosen(wanted.size());
      const auto draws = device.draws(static_cast<int64_t>(chosen.size()));
      ASSERT_EQ(batch.extend_ahead(kFirst, kNumbers, *device.choice(), draws, chosen), kSteps);
      EXPECT_EQ(chosen, wanted);
      for (int32_t s = 0; s < kSequences; s++) EXPECT_EQ(batch.length(s), 4 * s + 1 + kSteps);
      // The cache has what the host's steps would have left.
      const auto logits = batch.extend(std::span(chosen).last(kSequences), kNumbers);
      EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), next);
    }
  }
}

TEST(BatchAhead, WhatDoesNotFitIsAnError) {
  Engine engine = small_engine("llama-3.1-8b");
  Batch batch(engine);
  fill(batch);
  std::vector<int32_t> chosen(2 * kSteps);
  const std::vector<double> draws(chosen.size());
  const auto ahead = [&](const std::vector<int32_t>& sequences, size_t num_draws) {
    batch.extend_ahead(std::span(kFirst).first(2), sequences, {}, std::span(draws).first(num_draws), chosen);
  };
  expect_parts(error_of([&] { ahead({1, 1}, draws.size()); }), {"sequence 1 is there 2 times", "once expected"});
  expect_parts(error_of([&] { ahead({1, 0}, 4); }), {"4 draws", "16 tokens", "8 steps of 2 sequences"});
  expect_parts(error_of([&] { ahead({1, 3}, draws.size()); }), {"sequence 3 does not exist"});
  batch.prefill(std::vector<int32_t>(48 - 9 - 3, 1), 2);
  EXPECT_EQ(batch.max_ahead(std::vector<int32_t>{2, 0}), 3);  // positions that are left
  EXPECT_EQ(batch.length(1), 5);
}

}  // namespace
}  // namespace nibble
