// Tiles of 64 for every M give the bits that the chosen route gives: each op that multiplies by a matrix, odd shapes,
// more tokens than a tile, on 1 and 3 threads.
#include "backends/cpu/linears.h"

#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/cpu_vector.h"
#include "backends/step_program.h"

namespace nibble {
namespace {

void expect_same_bits(StepProgram& p) {
  for (const auto [num_threads, bits] : {std::pair{1, 15}, {3, 15}, {1, 8}}) {
    const auto backend = make_cpu_backend(num_threads, bits);
    p.step.linear_route = LinearRoute::by_tokens;
    const std::vector<float> chosen = p.run(*backend, p.one_run());
    p.step.linear_route = LinearRoute::always_tiles;
    const std::vector<float> tiles = p.run(*backend, p.one_run());
    ASSERT_EQ(tiles.size(), chosen.size());
    EXPECT_TRUE(std::memcmp(tiles.data(), chosen.data(), chosen.size() * sizeof(float)) == 0) << num_threads;
    EXPECT_TRUE(std::ranges::any_of(chosen, [](float value) { return value != 0; }));
  }
}

TEST(AlwaysTiles, LinearsWithNormsBiasesAndSums) {
  for (int64_t M : {1, 9, 70}) {
    for (FormatId format : {FormatId::f32, FormatId::bf16, FormatId::q8_0, FormatId::mxfp4, FormatId::nvfp4}) {
      for (const auto& [N, K] : {std::pair{1, 64}, {37, 96}, {131, 160}}) {
        SCOPED_TRACE(fmt::format("{} M {} N {} K {}", format_name(format), M, N, K));
        StepProgram p(M);
        const Slice x = p.random_input("x", K + 9, M).columns(4, K);
        const Slice normed = p.step.buffer("normed", K), gate = p.step.buffer("gate", N), up = p.step.buffer("up", N);
        const Slice wide = p.random_input("wide", N + 7, M), out = wide.columns(3, N);
        p.step.rms_norm({.x = x, .weight = p.vector(K), .out = normed, .eps = 1e-5f});
        p.step.linear({.x = normed, .w = p.matrix(format, N, K), .bias = p.vector(N), .out = gate});
        p.step.linear({.x = normed, .w = p.matrix(format, N, K), .out = up});
        p.step.swiglu({.gate = gate, .up = up, .out = out});
        p.step.linear({.x = x, .w = p.matrix(format, N, K), .bias = p.vector(N), .out = out, .accumulate = true});
        p.step.logits = wide;  // with the columns beside it, which stay as they were
        expect_same_bits(p);
      }
    }
  }
}

TEST(AlwaysTiles, HeadsAndExperts) {
  for (int64_t M : {1, 5, 67}) {
    for (FormatId format : {FormatId::bf16, FormatId::mxfp4, FormatId::nvfp4}) {
      SCOPED_TRACE(fmt::format("{} M {}", format_name(format), M));
      const int64_t E = 5, top_k = 3, I = 80, H = 96;
      StepProgram p(M);
      const auto matrices = [&](int64_t N, int64_t K, uint32_t seed) {
        return p.matrix(random_weight(format, E, N, K, 1, seed));
      };
      const Slice x = p.random_input("x", H, M), logits = p.random_input("logits", E, M);
      const Slice out = p.random_input("out", E * 33, M), heads = p.random_input("heads", E * 64, M);
      const Slice experts = p.step.buffer("experts", top_k), weights = p.step.buffer("weights", top_k);
      const Slice hidden = p.step.buffer("hidden", top_k * I);
      p.step.head_linear({.x = heads, .w = matrices(33, 64, 11), .num_heads = E, .out = out});
      p.step.route({.logits = logits, .scores = RouterScores::softmax, .experts = experts, .expert_weights = weights});
      p.step.moe_gate_up({.x = x,
                          .gate = matrices(I, H, 12),
                          .up = matrices(I, H, 13),
                          .gate_bias = p.vector(E * I),
                          .up_bias = p.vector(E * I),
                          .experts = experts,
                          .out = hidden});
      p.step.moe_down({.x = hidden,
                       .down = matrices(H, I, 14),
                       .experts = experts,
                       .expert_weights = weights,
                       .out = out.columns(7, H)});
      p.step.logits = out;
      expect_same_bits(p);
    }
  }
}

// The biases of many experts are a vector that is longer than any row.
TEST(AlwaysTiles, TheirScratchIsAsWideAsTheWidestMatrix) {
  const PackedMatrix narrow(random_weight(FormatId::mxfp4, 1, 16, 64, 1, 1)),
      wide(random_weight(FormatId::mxfp4, 1, 16, 128, 1, 2));
  const CpuVector biases(random_activations(5000, 3));
  const auto bytes = [](const std::vector<const PackedWeight*>& weights) {
    return Linears(LinearRoute::always_tiles, kActivationBits, weights, 2).scratch_bytes();
  };
  EXPECT_EQ(bytes({&narrow, &biases, &wide}), bytes({&wide}));
  EXPECT_LT(bytes({&narrow, &biases}), bytes({&wide}));
}

TEST(AlwaysTiles, ItIsAPureChoice) {
  EXPECT_EQ(choose_linear(1), LinearKernel::gemv);
  EXPECT_EQ(choose_linear(2), LinearKernel::batched);
  EXPECT_EQ(choose_linear(65), LinearKernel::batched);
  for (int64_t M : {1, 8, 9, 64, 100})
    EXPECT_EQ(choose_linear(M, LinearRoute::always_tiles), LinearKernel::tiles_of_64);
}

}  // namespace
}  // namespace nibble
