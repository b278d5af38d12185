// Attention on the CPU over caches of many chunks, and over rings that keep no more than a window: against the reference,
// which is given a cache that forgets nothing.
#include <cstring>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/cpu/cpu_attention.h"
#include "backends/step_comparison.h"

namespace nibble {
namespace {

struct Heads {
  int64_t num_heads, num_kv_heads, head_dim, window;
};

// Tokens of one sequence in steps of M, from position 0 on.
Runs steps_of(int64_t M, int64_t num_positions) {
  Runs runs;
  for (int64_t pos = 0; pos + M <= num_positions; pos += M) {
    runs.emplace_back();
    for (int64_t m = 0; m < M; m++)
      runs.back().push_back({static_cast<int32_t>((pos + m) * 7 % 32), static_cast<int32_t>(pos + m), 0});
  }
  return runs;
}

StepProgram program(const Heads& s, int64_t M, int64_t max_len, KvCacheType type, int64_t spare = 1024) {
  StepProgram p(M);
  const int64_t q_width = s.num_heads * s.head_dim, kv_width = s.num_kv_heads * s.head_dim;
  const Slice qkv = p.random_input("qkv", q_width + 2 * kv_width);
  p.cache_shape = {.layers = {{kv_width, kv_width, s.window, s.num_kv_heads}},
                   .num_sequences = 1,
                   .max_len = max_len,
                   .type = type,
                   .spare = spare};
  p.step.logits = p.step.buffer("attended", q_width);
  p.step.kv_append({.k = qkv.columns(q_width, kv_width), .v = qkv.columns(q_width + kv_width, kv_width), .layer = 0});
  p.step.attention({.q = qkv.columns(0, q_width),
                    .layer = 0,
                    .num_heads = s.num_heads,
                    .num_kv_heads = s.num_kv_heads,
                    .head_dim = s.head_dim,
                    .scale = 0.3f,
                    .out = p.step.logits,
                    .window = s.window,
                    .sinks = p.vector(s.num_heads)});
  return p;
}

// The last `count` of equal rows.
std::vector<float> last_rows(const std::vector<float>& values, int64_t width, int64_t count) {
  return {values.end() - static_cast<std::ptrdiff_t>(width * count), values.end()};
}

TEST(CpuAttention, ManyChunksInStepsOfAnySize) {
  constexpr int64_t kPositions = kAttendChunk + 64;
  for (const Heads& s : {Heads{5, 1, 20, 0}, {6, 3, 16, 0}, {4, 2, 33, 530}}) {
    for (const KvCacheType type : {KvCacheType::f32, KvCacheType::f16}) {
      SCOPED_TRACE(fmt::format("{}/{} heads of {}, window {}, {}", s.num_heads, s.num_kv_heads, s.head_dim, s.window,
                               kv_cache_type_name(type)));
      const StepProgram many = program(s, 64, kPositions, type);
      const auto values = cpu_values(many, steps_of(64, kPositions));
      expect_near(values, many.run(*make_reference_backend(), steps_of(64, kPositions)), 2e-5f);
      const StepProgram one = program(s, 1, kPositions, type);
      EXPECT_EQ(one.run(*make_cpu_backend(2), steps_of(1, kPositions)), values);
    }
  }
}

TEST(CpuAttention, LatentsOfManyChunks) {
  constexpr int64_t kPositions = kAttendChunk + 48, kHeads = 5, kLatent = 40, kRope = 6;
  StepProgram one(1), many(40);
  for (StepProgram* p : {&one, &many}) {
    const Slice q_latent = p->random_input("q_latent", kHeads * kLatent), q = p->random_input("q", kHeads * 9);
    const Slice k = p->random_input("k", kLatent + kRope);
    p->cache_shape = {.layers = {{kLatent + kRope, 0}}, .max_len = kPositions, .type = KvCacheType::f16};
    p->step.logits = p->step.buffer("out", kHeads * kLatent);
    p->step.kv_append({.k = k, .v = {k.buffer, 0, 0}, .layer = 0});
    p->step.latent_attention({.q_latent = q_latent,
                              .q = q,
                              .layer = 0,
                              .num_heads = kHeads,
                              .latent_dim = kLatent,
                              .rope_dim = kRope,
                              .scale = 0.2f,
                              .out = p->step.logits});
  }
  const auto values = cpu_values(many, steps_of(40, kPositions));
  expect_near(values, many.run(*make_reference_backend(), steps_of(40, kPositions)), 2e-5f);
  const auto alone = one.run(*make_cpu_backend(2), steps_of(1, kPositions));
  EXPECT_EQ(last_rows(alone, kHeads * kLatent, 40), last_rows(values, kHeads * kLatent, 40));
}

TEST(KvRing, GivesWhatACacheOfAllPositionsGives) {
  for (const Heads& s : {Heads{3, 1, 20, 7}, {4, 2, 16, 1}, {4, 4, 8, 12}}) {
    for (const int64_t spare : {0, 1, 5}) {
      for (const int64_t M : {int64_t{1}, spare + 1}) {
        SCOPED_TRACE(fmt::format("window {}, spare {}, M {}", s.window, spare, M));
        const StepProgram ring = program(s, M, 60, KvCacheType::f16, spare), all = program(s, M, 60, KvCacheType::f16);
        ASSERT_EQ(ring.cache_shape.kept(ring.cache_shape.layers[0]), s.window + spare);
        ASSERT_EQ(all.cache_shape.kept(all.cache_shape.layers[0]), 60);
        const auto values = cpu_values(ring, steps_of(M, 60));
        EXPECT_EQ(values, cpu_values(all, steps_of(M, 60)));
        const auto expected = all.run(*make_reference_backend(), steps_of(M, 60));
        EXPECT_EQ(ring.run(*make_reference_backend(), steps_of(M, 60)), expected);
        expect_near(values, expected, 2e-5f);
      }
    }
  }
}

TEST(KvRing, GoesBackByItsSpare) {
  // 9 positions, back to the fifth, and on again: the ring has 4 + 4 rows.
  const Heads s{2, 1, 8, 4};
  Runs runs = steps_of(1, 9), again = steps_of(1, 12);
  runs.insert(runs.end(), again.begin() + 5, again.end());
  const auto values = cpu_values(program(s, 1, 30, KvCacheType::f32, 4), runs);
  EXPECT_EQ(last_rows(values, 16, 7), last_rows(cpu_values(program(s, 1, 30, KvCacheType::f32), again), 16, 7));
}

TEST(KvRing, KeepsNoMoreThanItsWindow) {
  const KvCacheShape shape{.layers = {{10, 6, 8}, {10, 6, 0}}, .num_sequences = 3, .max_len = 100, .spare = 5};
  EXPECT_EQ(shape.kept(shape.layers[0]), 13);
  EXPECT_EQ(shape.kept(shape.layers[1]), 100);
  EXPECT_EQ(shape.bytes(), 3 * 16 * (13 + 100) * 2);
  const KvCacheShape small{.layers = {{10, 6, 8}}, .max_len = 9, .spare = 5};
  EXPECT_EQ(small.kept(small.layers[0]), 9);  // never more than there are

  EXPECT_TRUE(shape.can_resume(90, 90));
  EXPECT_TRUE(shape.can_resume(90, 84));  // position 84 reads 77 … 84, and 77 … 89 are there
  EXPECT_FALSE(shape.can_resume(90, 83));
  EXPECT_TRUE(shape.can_resume(90, 0));
  EXPECT_FALSE(shape.can_resume(90, 1));
  EXPECT_TRUE(shape.can_resume(13, 1));
  EXPECT_FALSE(shape.can_resume(14, 1));
  const KvCacheShape none{.layers = {{10, 6}}, .max_len = 100, .spare = 0};
  EXPECT_TRUE(none.can_resume(100, 1));
}

TEST(CpuAttention, PositionsAreSharedWhereHeadsDoNotSuffice) {
  const auto splits = [](int64_t M, int64_t num_kv_heads, int num_workers) {
    return splits_positions({.M = M, .num_heads = 32, .num_kv_heads = num_kv_heads}, num_workers);
  };
  EXPECT_FALSE(splits(1, 1, 1));
  EXPECT_TRUE(splits(1, 1, 2));
  EXPECT_FALSE(splits(1, 8, 2));
  EXPECT_TRUE(splits(1, 8, 16));
  EXPECT_FALSE(splits(64, 1, 16));
}

}  // namespace
}  // namespace nibble
