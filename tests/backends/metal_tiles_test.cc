// Matrices and many tokens on Metal: tiles of 64 by 64 give what the reference gives, and a token's result does not depend
// on the others.
#include <array>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/experts_program.h"
#include "backends/metal/metal_fuse.h"
#include "backends/packed_program.h"
#include "backends/step_comparison.h"
#include "weights/convert.h"

namespace nibble {
namespace {

struct TileShape {
  int64_t M, N, K;
};

TEST(MetalTiles, LinearsInEveryFormat) {
  for (FormatId format : format_ids(KernelFormats{})) {
    for (const auto& [M, N, K] : {TileShape{33, 5, 256}, {70, 67, 128}}) {
      SCOPED_TRACE(fmt::format("{} M {} N {} K {}", format_name(format), M, N, K));
      StepProgram p(M);
      const Slice x = p.random_input("x", K, M);
      p.step.logits = p.step.buffer("out", N);
      p.step.linear({.x = x, .w = p.matrix(format, N, K), .out = p.step.logits});
      expect_reference(p, p.one_run(), 5e-6f);
    }
  }
}

// Slices that are not aligned, norms that others read, biases, sums, three matrices of different sizes in a dispatch.
StepProgram block_program(int64_t M, int64_t N, int64_t K) {
  StepProgram p(M);
  Step& s = p.step;
  const Slice x = p.random_input("x", K + 9, M).columns(5, K), normed = s.buffer("normed", K);
  const Slice wide = p.random_input("wide", 3 * N + 90, M);
  const Slice one = wide.columns(1, N), two = wide.columns(N + 1, 70), three = wide.columns(N + 71, 1);
  s.rms_norm({.x = x, .weight = p.vector(K), .out = normed, .eps = 1e-5f});
  for (const Slice& out : {one, two, three})
    s.linear({.x = normed, .w = p.matrix(FormatId::bf16, out.width, K), .bias = p.vector(out.width), .out = out});
  s.linear({.x = x, .w = p.matrix(FormatId::f32, N, K), .out = one, .accumulate = true});
  const Slice gate = s.buffer("gate", N), up = s.buffer("up", N), hidden = wide.columns(2 * N + 80, N);
  s.linear({.x = normed, .w = p.matrix(FormatId::bf16, N, K), .out = gate});
  s.linear({.x = normed, .w = p.matrix(FormatId::bf16, N, K), .out = up});
  s.swiglu({.gate = gate, .up = up, .out = hidden});
  s.logits = wide;
  return p;
}

TEST(MetalTiles, NormsBiasesSumsAndBlocks) {
  for (const auto& [M, N, K] : {TileShape{33, 1, 33}, {64, 64, 64}, {65, 130, 40}}) {
    SCOPED_TRACE(fmt::format("M {} N {} K {}", M, N, K));
    const StepProgram p = block_program(M, N, K);
    expect_reference(p, p.one_run(), 1e-5f);
  }
}

TEST(MetalTiles, HeadsHaveAMatrixEach) {
  for (const auto& [M, N, K] : {TileShape{33, 3, 40}, {66, 65, 32}}) {
    SCOPED_TRACE(fmt::format("M {} N {} K {}", M, N, K));
    StepProgram p(M);
    const Slice x = p.random_input("x", 3 * (K + 2), M);
    p.step.logits = p.step.buffer("out", 3 * N);
    p.step.head_linear(
        {.x = x, .w = p.matrix(random_weight(FormatId::bf16, 3, N, K, 1, 7)), .num_heads = 3, .out = p.step.logits});
    expect_reference(p, p.one_run(), 5e-6f);
  }
}

TEST(MetalTiles, Experts) {
  for (const auto& [M, E, top_k] : {std::array<int64_t, 3>{40, 2, 1}, {90, 5, 2}, {130, 1, 1}}) {
    for (const bool clamped : {false, true}) {
      SCOPED_TRACE(fmt::format("M {} E {} top_k {} clamped {}", M, E, top_k, clamped));
      const StepProgram p = experts_program(M, E, top_k, FormatId::bf16, FormatId::bf16, clamped);
      expect_reference(p, p.one_run(), 2e-5f);
    }
  }
  const StepProgram apart = experts_program(70, 4, 3, FormatId::f32, FormatId::bf16, true);
  expect_reference(apart, apart.one_run(), 2e-5f);
}

TEST(MetalTiles, ExpertsOfEveryTokenAreThoseItChose) {
  // All tokens choose expert 3, and some the first or the last.
  StepProgram p(100);
  std::vector<float> chosen;
  for (int m = 0; m < 100; m++) chosen.insert(chosen.end(), {3, m % 7 == 0 ? 0.0f : 5.0f});
  const Slice x = p.random_input("x", 32, 100), hidden = p.step.buffer("hidden", 2 * 16);
  const Slice experts = p.step.buffer("experts", 2), weights = p.random_input("weights", 2, 100);
  p.step.embed({.w = p.rows(chosen, 2), .out = experts});
  p.step.logits = p.random_input("out", 24, 100);
  const auto matrices = [&](int64_t N, int64_t K, uint32_t seed) {
    return p.matrix(random_weight(FormatId::mxfp4, 6, N, K, 1, seed));
  };
  p.step.moe_gate_up(
      {.x = x, .gate = matrices(16, 32, 1), .up = matrices(16, 32, 2), .experts = experts, .out = hidden});
  p.step.moe_down({.x = hidden,
                   .down = p.matrix(random_weight(FormatId::f32, 6, 24, 16, 1, 3)),
                   .experts = experts,
                   .expert_weights = weights,
                   .out = p.step.logits});
  expect_reference(p, p.one_run(), 2e-5f);
}

TEST(MetalTiles, ATokenDoesNotDependOnItsNeighbours) {
  expect_no_neighbours([](int64_t M) { return block_program(M, 40, 70); });
  expect_no_neighbours([](int64_t M) { return block_program(M, 40, 70); }, 1, 6);  // rows, of one token and of four
  expect_no_neighbours([](int64_t M) { return experts_program(M, 3, 2, FormatId::bf16, FormatId::bf16, false); });
}

TEST(MetalTiles, AreForManyTokens) {
  using PhaseNames = std::vector<std::string>;
  const auto backend = std::move(backends_under_test()[0]);
  const auto last_phases = [&](const StepProgram& p, std::ptrdiff_t count) {
    const PhaseNames names = PackedProgram(p, *backend).phase_names();
    return PhaseNames(names.end() - count, names.end());
  };
  EXPECT_EQ(last_phases(block_program(32, 40, 40), 1), (PhaseNames{"2 linears + swiglu (gate_up_block_bf16)"}));
  EXPECT_EQ(last_phases(block_program(33, 40, 40), 2),
            (PhaseNames{"2 linears (linear_tiles_bf16)", "swiglu (swiglu)"}));
  const auto experts = [](int64_t M) { return experts_program(M, 4, 2, FormatId::bf16, FormatId::f32, false); };
  EXPECT_EQ(last_phases(experts(1), 3),
            (PhaseNames{"moe_gate (gate_up_bf16)", "moe_up (gate_up_f32)", "moe_down (moe_down_bf16)"}));
  EXPECT_EQ(last_phases(experts(31), 5),
            (PhaseNames{"moe_gate (sort_pairs)", "moe_gate (gate_up_pairs_bf16)", "moe_up (gate_up_pairs_f32)",
                        "moe_down (moe_down_pairs_bf16)", "moe_down (sum_experts)"}));
  EXPECT_EQ(last_phases(experts(32), 5),  // sorted once for both
            (PhaseNames{"moe_gate (sort_pairs)", "moe_gate (gate_up_tiles_bf16)", "moe_up (gate_up_tiles_f32)",
                        "moe_down (moe_down_tiles_bf16)", "moe_down (sum_experts)"}));
  EXPECT_FALSE(metal_fusion::takes_expert_tiles(255 * 8, 128));
  EXPECT_TRUE(metal_fusion::takes_expert_tiles(256 * 8, 128));
}

}  // namespace
}  // namespace nibble
