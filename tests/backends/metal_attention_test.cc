// Attention on Metal over contexts of several parts, which threadgroups share where a step has few heads.
#include <functional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/attention_program.h"
#include "backends/metal/arguments.h"

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
  const StepProgram many = program(64);
  const auto values = backend_values(many, steps_of(64, kPositions));
  expect_near(values, many.run(*make_reference_backend(), steps_of(64, kPositions)), 2e-5f);
  EXPECT_EQ(backend_values(program(1), steps_of(1, kPositions)), values);
}

TEST(MetalAttention, ThreadgroupsThatShareAContextChangeNothing) {
  expect_same([](int64_t M) { return attention_program({4, 1, 20, 0}, M, kPositions, KvCacheType::f16); });
  // A window whose cache is a ring of fewer positions than there are.
  expect_same([](int64_t M) { return attention_program({4, 2, 9, 130}, M, kPositions, KvCacheType::f32, 63); });
}

TEST(MetalAttention, ThreadgroupsThatShareLatentsChangeNothing) {
  expect_same([](int64_t M) { return latent_program(M, kPositions); });
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
