// Attention on the CPU over caches of many chunks, which several workers may share.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/attention_program.h"
#include "backends/cpu/cpu_attention.h"
#include "backends/cpu/cpu_backend.h"

namespace nibble {
namespace {

// Where many heads share a key, AMX's tiles take queries and softmax weights with 16 bits.
constexpr float kTilesTolerance = 1e-4f;

TEST(CpuAttention, ManyChunksInStepsOfAnySize) {
  constexpr int64_t kPositions = kAttendChunk + 64;
  for (const AttentionHeads& s : {AttentionHeads{5, 1, 20, 0}, {6, 3, 16, 0}, {4, 2, 33, 530}}) {
    for (const KvCacheType type : kKvCacheTypes) {
      SCOPED_TRACE(fmt::format("{}/{} heads of {}, window {}, {}", s.num_heads, s.num_kv_heads, s.head_dim, s.window,
                               kv_cache_type_name(type)));
      const StepProgram many = attention_program(s, 64, kPositions, type);
      const auto values = backend_values(many, steps_of(64, kPositions));
      expect_near(values, many.run(*make_reference_backend(), steps_of(64, kPositions)), attention_tolerance(type));
      const StepProgram one = attention_program(s, 1, kPositions, type);
      EXPECT_EQ(one.run(*make_cpu_backend(2), steps_of(1, kPositions)), values);
    }
  }
}

// 8 heads take a row of 8 bits together, then 4, then one; 40 and 72 columns are one group or two, and a piece of one.
TEST(CpuAttention, ManyHeadsOnOneOfEightBits) {
  for (const AttentionHeads& s : {AttentionHeads{13, 1, 40, 0}, {22, 2, 72, 9}}) {
    const StepProgram many = attention_program(s, 20, 40, KvCacheType::q8_0);
    const auto values = backend_values(many, steps_of(20, 40));
    expect_near(values, many.run(*make_reference_backend(), steps_of(20, 40)), attention_tolerance(KvCacheType::q8_0));
    const StepProgram one = attention_program(s, 1, 40, KvCacheType::q8_0);
    EXPECT_EQ(one.run(*make_cpu_backend(2), steps_of(1, 40)), values);
  }
}

TEST(CpuAttention, LatentsOfManyChunks) {
  constexpr int64_t kPositions = kAttendChunk + 48, kHeads = 11, kLatent = 40, kRope = 6;
  for (const KvCacheType type : {KvCacheType::f16, KvCacheType::q8_0}) {
    SCOPED_TRACE(kv_cache_type_name(type));
    StepProgram one(1), many(40);
    for (StepProgram* p : {&one, &many}) {
      const Slice q_latent = p->random_input("q_latent", kHeads * kLatent), q = p->random_input("q", kHeads * 9);
      const Slice k = p->random_input("k", kLatent + kRope);
      p->cache_shape = {.layers = {{kLatent + kRope, 0}}, .max_len = kPositions, .type = type};
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
    const auto values = backend_values(many, steps_of(40, kPositions));
    expect_near(values, many.run(*make_reference_backend(), steps_of(40, kPositions)),
                std::max(kTilesTolerance, attention_tolerance(type)));
    const auto alone = one.run(*make_cpu_backend(2), steps_of(1, kPositions));
    EXPECT_EQ(last_rows(alone, kHeads * kLatent, 40), last_rows(values, kHeads * kLatent, 40));
  }
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
  EXPECT_TRUE(splits(8, 1, 64));
  EXPECT_FALSE(splits(9, 1, 64));
}

}  // namespace
}  // namespace nibble
