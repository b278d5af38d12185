// Matrices and many tokens on Metal: tiles of 64 by 64 give what the reference gives, and a token's result does not depend
// on the others.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/step_comparison.h"
#include "weights/convert.h"

namespace nibble {
namespace {

struct TileShape {
  int64_t M, N, K;
};

TEST(MetalTiles, LinearsInEveryFormat) {
  for (FormatId format : format_ids(KernelFormats{})) {
    for (const auto& [M, N, K] : {TileShape{9, 5, 256}, {70, 67, 128}}) {
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
  for (const auto& [M, N, K] : {TileShape{9, 1, 33}, {64, 64, 64}, {65, 130, 40}}) {
    SCOPED_TRACE(fmt::format("M {} N {} K {}", M, N, K));
    const StepProgram p = block_program(M, N, K);
    expect_reference(p, p.one_run(), 1e-5f);
  }
}

TEST(MetalTiles, HeadsHaveAMatrixEach) {
  for (const auto& [M, N, K] : {TileShape{9, 3, 40}, {66, 65, 32}}) {
    SCOPED_TRACE(fmt::format("M {} N {} K {}", M, N, K));
    StepProgram p(M);
    const Slice x = p.random_input("x", 3 * (K + 2), M);
    p.step.logits = p.step.buffer("out", 3 * N);
    p.step.head_linear(
        {.x = x, .w = p.matrix(random_weight(FormatId::bf16, 3, N, K, 1, 7)), .num_heads = 3, .out = p.step.logits});
    expect_reference(p, p.one_run(), 5e-6f);
  }
}

// The rows of tokens 0 … 8 of a step of 9 and of one of 70, whose other tokens are others.
TEST(MetalTiles, ATokenDoesNotDependOnItsNeighbours) {
  const auto values = [](int64_t M) {
    const StepProgram p = block_program(M, 40, 70);
    Runs runs(1);
    for (int32_t m = 0; m < M; m++) runs[0].push_back({m < 9 ? m : 0, m, 0});
    return backend_values(p, runs);
  };
  const std::vector<float> few = values(9), many = values(70);
  EXPECT_EQ(std::vector<float>(many.begin(), many.begin() + static_cast<std::ptrdiff_t>(few.size())), few);
}

}  // namespace
}  // namespace nibble
