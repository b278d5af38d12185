// Attention on Metal over contexts of several parts, which threadgroups share where a step has few heads.
#include <functional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/attention_program.h"
#include "backends/metal/arguments.h"
#include "backends/packed_program.h"

namespace nibble {
namespace {

constexpr int64_t kPositions = kAttendPart + 64;

StepProgram latent_program(int64_t M, int64_t max_len) {
  constexpr int64_t kHeads = 4, kLatent = 40, kRope = 6;
  StepProgram p(M);
  const Slice q_latent = p.random_input("q_latent", kHeads * kLatent), q = p.random_input("q", kHeads * 9);
  const Slice k = p.random_input("k", kLatent + kRope);
  p.cache_shape = {.layers = {{kLatent + kRope, 0}}, .max_len = max_len, .type = KvCacheType::f16};
  p.step.logits = p.step.buffer("out", kHeads * kLatent);
  p.step.kv_append({.k = k, .v = {k.buffer, 0, 0}, .layer = 0});
  p.step.latent_attention({.q_latent = q_latent,
                           .q = q,
                           .layer = 0,
                           .num_heads = kHeads,
                           .latent_dim = kLatent,
                           .rope_dim = kRope,
                           .scale = 0.2f,
                           .out = p.step.logits});
  return p;
}

// 64 tokens of 4 heads are threadgroups enough without sharing, one token's are not: both give the same bits.
void expect_same(const std::function<StepProgram(int64_t M)>& program) {
  const Runs prompt = steps_of(64, kPositions), tokens = steps_of(1, kPositions);
  const std::vector<float> expected = program(64).run(*make_reference_backend(), prompt);
  for (const auto& backend : backends_under_test()) {
    PackedProgram many(program(64), *backend), one(program(1), *backend);
    std::vector<float> values;
    for (const auto& places : prompt) {
      const std::vector<float> block = many.run(places);
      values.insert(values.end(), block.begin(), block.end());
    }
    expect_near(values, expected, 2e-5f);
    const size_t width = one.num_values;
    for (size_t pos = kPositions - 5; pos < kPositions; pos++) {  // once more
      const auto row = values.begin() + static_cast<std::ptrdiff_t>(pos * width);
      EXPECT_EQ(one.run(tokens[pos], *many.cache), std::vector<float>(row, row + static_cast<std::ptrdiff_t>(width)));
    }
  }
}

TEST(MetalAttention, ThreadgroupsThatShareAContextChangeNothing) {
  expect_same([](int64_t M) { return attention_program({4, 1, 20, 0}, M, kPositions, KvCacheType::f16); });
  // A window whose cache is a ring of fewer positions than there are.
  expect_same([](int64_t M) { return attention_program({4, 2, 9, 130}, M, kPositions, KvCacheType::f32, 63); });
}

TEST(MetalAttention, ThreadgroupsThatShareLatentsChangeNothing) {
  expect_same([](int64_t M) { return latent_program(M, kPositions); });
}

TEST(MetalAttention, ItIsSharedWhereHeadsAreFewAndPositionsMany) {
  const auto last_phase = [](int64_t M, int64_t max_len, int64_t window) {
    const auto backend = std::move(backends_under_test()[0]);
    const PackedProgram program(attention_program({4, 1, 20, window}, M, max_len, KvCacheType::f16), *backend);
    return program.phase_names().back();
  };
  const std::string alone = "attention (attention_f16_128)", shared = "attention (merge_attention)";
  EXPECT_EQ(last_phase(1, kAttendPart, 0), alone);
  EXPECT_EQ(last_phase(1, kAttendPart + 1, 0), shared);
  EXPECT_EQ(last_phase(63, 4096, 0), shared);
  EXPECT_EQ(last_phase(64, 4096, 0), alone);
  EXPECT_EQ(last_phase(1, 4096, 1), alone);
  EXPECT_EQ(last_phase(1, 4096, 2), shared);  // which may be on both sides of a part's end
}

// Few positions at the ends of parts; the caches between them are as they were made, all zeros.
TEST(MetalAttention, PartsBeginAndEnd) {
  Runs runs;
  for (int32_t pos : {0, 1, 254, 255, 256, 257, 511, 512, 513}) runs.push_back({{pos % 32, pos, 0}});
  for (const int64_t window : {0, 3, 256, 257}) {
    SCOPED_TRACE(fmt::format("window {}", window));
    expect_reference(attention_program({2, 1, 8, window}, 1, 600, KvCacheType::f32), runs, 2e-5f);
  }
  expect_reference(latent_program(1, 600), runs, 2e-5f);
}

}  // namespace
}  // namespace nibble
