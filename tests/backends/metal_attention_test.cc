// Attention on Metal over contexts of several parts, which threadgroups share where a step has few heads.
#include <functional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/attention_program.h"
#include "backends/metal/arguments.h"
#include "backends/packed_program.h"

namespace nibble {
namespace {

constexpr int64_t kPositions = kAttendPart + 40;

StepProgram latent_program(int64_t M, int64_t max_len) {
  constexpr int64_t kHeads = 16, kLatent = 40, kRope = 6;
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

Place place_at(int64_t pos) { return {static_cast<int32_t>(pos * 7 % 32), static_cast<int32_t>(pos), 0}; }

// The heads of so many tokens are threadgroups enough without sharing, one token's are not: both give the same bits. The cache
// before them is as it was made, all zeros.
void expect_same(const std::function<StepProgram(int64_t M)>& program, int64_t num_tokens, bool in_one_order = false) {
  Runs prompt(1);
  for (int64_t pos = kPositions - num_tokens; pos < kPositions; pos++) prompt[0].push_back(place_at(pos));
  const std::vector<float> expected = program(num_tokens).run(*make_reference_backend(), prompt);
  auto backends = backends_under_test();
  if (in_one_order) backends.resize(1);
  for (const auto& backend : backends) {
    PackedProgram many(program(num_tokens), *backend), one(program(1), *backend);
    EXPECT_EQ(many.phase_names().back().find("merge"), std::string::npos);
    EXPECT_NE(one.phase_names().back().find("merge"), std::string::npos);
    const std::vector<float> values = many.run(prompt[0]);
    expect_near(values, expected, 2e-5f);
    const auto width = static_cast<int64_t>(one.num_values);
    for (int64_t pos = kPositions - 5; pos < kPositions; pos++) {  // once more
      const auto row = values.begin() + (pos - kPositions + num_tokens) * width;
      EXPECT_EQ(one.run({place_at(pos)}, *many.cache), std::vector<float>(row, row + width));
    }
  }
}

TEST(MetalAttention, ThreadgroupsThatShareAContextChangeNothing) {
  expect_same([](int64_t M) { return attention_program({32, 8, 20, 0}, M, kPositions, KvCacheType::f16); }, 32, true);
  // A window whose cache is a ring of fewer positions than there are.
  expect_same([](int64_t M) { return attention_program({32, 16, 9, 50}, M, kPositions, KvCacheType::f32, 63); }, 32);
}

TEST(MetalAttention, ThreadgroupsThatShareLatentsChangeNothing) {
  expect_same([](int64_t M) { return latent_program(M, kPositions); }, 64, true);
}

TEST(MetalAttention, ItIsSharedWhereQueriesAreFewAndPositionsMany) {
  const auto last_phase = [](int64_t M, int64_t max_len, int64_t window, int64_t num_heads = 4) {
    const auto backend = std::move(backends_under_test()[0]);
    const PackedProgram program(attention_program({num_heads, num_heads / 4, 20, window}, M, max_len, KvCacheType::f16),
                                *backend);
    return program.phase_names().back();
  };
  const std::string alone = "attention (attention_block_f16_128)", shared = "attention (merge_attention)";
  EXPECT_EQ(last_phase(1, kAttendPart, 0), alone);
  EXPECT_EQ(last_phase(1, kAttendPart + 1, 0), shared);
  EXPECT_EQ(last_phase(31, 4096, 0, 32), shared);
  EXPECT_EQ(last_phase(32, 4096, 0, 32), alone);
  EXPECT_EQ(last_phase(33, 4096, 0), "attention (attention_tiles_f16_128)");  // which is not
  EXPECT_EQ(last_phase(1, 4096, 1), alone);
  EXPECT_EQ(last_phase(1, 4096, 2), shared);  // which may be on both sides of a part's end
}

TEST(MetalAttention, HeadsAndTokensThatReadTheSameKeysShareAThreadgroup) {
  const auto kernel_of = [](const AttentionHeads& heads, int64_t M) {
    const auto backend = std::move(backends_under_test()[0]);
    return PackedProgram(attention_program(heads, M, 64, KvCacheType::f32), *backend).phase_names().back();
  };
  EXPECT_EQ(kernel_of({2, 2, 128, 0}, 1), "attention (attention_f32_128)");
  EXPECT_EQ(kernel_of({2, 2, 128, 0}, 2), "attention (attention_block_f32_128)");
  EXPECT_EQ(kernel_of({4, 2, 256, 0}, 1), "attention (attention_block_f32_256)");
  EXPECT_EQ(kernel_of({4, 2, 256, 0}, 33), "attention (attention_tiles_f32_256)");
  EXPECT_EQ(kernel_of({4, 2, 257, 0}, 33), "attention (attention_block_f32_640)");
  EXPECT_EQ(kernel_of({2, 1, 640, 0}, 1), "attention (attention_block_f32_640)");
  EXPECT_EQ(kernel_of({2, 1, 641, 0}, 2), "attention (attention_f32_1024)");  // which has no room for a second one
}

// Threadgroups that end amid a token's heads, whose tokens are of three sequences, some of which begin later.
TEST(MetalAttention, TokensOfSeveralSequencesInAThreadgroup) {
  for (const AttentionHeads& heads : {AttentionHeads{3, 1, 9, 0}, {6, 2, 40, 3}, {2, 1, 300, 4}}) {
    SCOPED_TRACE(fmt::format("{} heads of {}", heads.num_heads, heads.head_dim));
    StepProgram p = attention_program(heads, 7, 300, KvCacheType::f16);
    p.cache_shape.num_sequences = 3;
    Runs runs;
    for (int32_t pos : {2, 254})
      runs.push_back({{1, pos, 0},
                      {2, pos + 1, 0},
                      {3, pos / 2, 2},
                      {4, pos, 1},
                      {5, pos / 2 + 1, 2},
                      {6, pos + 2, 0},
                      {7, pos + 1, 1}});
    expect_reference(p, runs, 2e-5f);
  }
}

// Prompts in tiles: ends of tiles of queries and of positions, windows, rings, both types of cache, heads of each size.
TEST(MetalAttention, ManyTokensGoInTiles) {
  struct Prompt {
    AttentionHeads heads;
    int64_t M, num_positions;
    KvCacheType type;
  };
  for (const Prompt& c : {Prompt{{2, 2, 8, 0}, 33, 99, KvCacheType::f32},
                          {{3, 1, 40, 0}, 43, 86, KvCacheType::f16},
                          {{4, 2, 33, 20}, 64, 128, KvCacheType::f32},
                          {{2, 1, 131, 50}, 35, 105, KvCacheType::f16},
                          {{1, 1, 256, 0}, 65, 65, KvCacheType::f32}}) {
    SCOPED_TRACE(fmt::format("{} heads of {}, {} tokens", c.heads.num_heads, c.heads.head_dim, c.M));
    expect_reference(attention_program(c.heads, c.M, c.num_positions, c.type, c.M), steps_of(c.M, c.num_positions),
                     2e-5f);
  }
}

TEST(MetalAttention, OneTileOfPositions) {  // few lanes: for ThreadSanitizer
  expect_reference(attention_program({1, 1, 8, 0}, 33, 33, KvCacheType::f16), steps_of(33, 33), 2e-5f);
}

TEST(MetalAttention, ATokenOfATileDoesNotDependOnItsNeighbours) {
  // 40 tokens of sequence 1, alone, and among those of others which begin earlier and later, and end earlier.
  const AttentionHeads heads{3, 1, 20, 0};
  const auto run = [&](const std::vector<Place>& places) {
    StepProgram p = attention_program(heads, static_cast<int64_t>(places.size()), 300, KvCacheType::f16);
    p.cache_shape.num_sequences = 3;
    return backend_values(p, {places});
  };
  std::vector<Place> alone, among;
  for (int32_t pos = 0; pos < 40; pos++) {
    alone.push_back({pos * 7 % 32, pos + 60, 1});
    if (pos % 3 == 0) among.push_back({pos % 5, pos / 3 + 250, 0});
    among.push_back(alone.back());
    if (pos % 8 == 0) among.push_back({pos % 6, pos / 8, 2});
  }
  const std::vector<float> expected = run(alone), values = run(among);
  const size_t width = expected.size() / alone.size();
  size_t row = 0;
  for (size_t m = 0; m < among.size(); m++) {
    if (among[m].sequence != 1) continue;
    for (size_t i = 0; i < width; i++) ASSERT_EQ(values[m * width + i], expected[row * width + i]) << m << " " << i;
    row++;
  }
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
