// Steps with experts, and what their tokens must not know of each other: for the tests of the ways in which several tokens go
// through matrices.
#pragma once

#include <functional>

#include "backends/random_weights.h"
#include "backends/step_comparison.h"

namespace nibble {

// Gate, up and down of `E` experts, of which each token has chosen some, given or by its logits.
inline StepProgram experts_program(int64_t M, int64_t E, int64_t top_k, FormatId gate, FormatId up, bool clamped) {
  const int64_t H = 40, I = 70;
  StepProgram p(M);
  Step& s = p.step;
  const auto matrices = [&](FormatId format, int64_t N, int64_t K, uint32_t seed) {
    return p.matrix(random_weight(format, E, N, K, 1, seed));
  };
  const Slice x = p.random_input("x", H + 3, M).columns(3, H), logits = p.random_input("router_logits", E, M);
  const Slice experts = s.buffer("experts", top_k), weights = s.buffer("weights", top_k);
  const Slice hidden = s.buffer("hidden", top_k * I);
  s.logits = p.random_input("out", H, M);
  s.route({.logits = logits, .scores = RouterScores::softmax, .experts = experts, .expert_weights = weights});
  for (int layer = 0; layer < 2; layer++) {  // the second goes by the pairs of the first
    s.moe_gate_up({.x = x,
                   .gate = matrices(gate, I, H, 7),
                   .up = matrices(up, I, H, 8),
                   .gate_bias = p.vector(E * I),
                   .up_bias = clamped ? p.vector(E * I) : WeightId{},
                   .experts = experts,
                   .activation = clamped ? ExpertActivation::clamped : ExpertActivation::silu,
                   .alpha = 1.7f,
                   .limit = 2,
                   .out = hidden});
    s.moe_down({.x = hidden,
                .down = matrices(FormatId::bf16, H, I, 9),
                .bias = clamped ? p.vector(E * H) : WeightId{},
                .experts = experts,
                .expert_weights = weights,
                .out = s.logits});
    if (layer == 0)
      s.route({.logits = logits,
               .scores = RouterScores::sigmoid,
               .normalise = false,
               .experts = experts,
               .expert_weights = weights});
  }
  return p;
}

// The rows of the first tokens of a step of `few` and of one of `more`, whose other tokens are others.
inline void expect_no_neighbours(const std::function<StepProgram(int64_t M)>& program, int32_t few = 40,
                                 int32_t more = 70) {
  const auto values = [&](int64_t M) {
    Runs runs(1);
    for (int32_t m = 0; m < M; m++) runs[0].push_back({m < few ? m : 0, m, 0});
    return backend_values(program(M), runs);
  };
  const std::vector<float> alone = values(few), with_others = values(more);
  EXPECT_EQ(std::vector<float>(with_others.begin(), with_others.begin() + static_cast<std::ptrdiff_t>(alone.size())),
            alone);
}

}  // namespace nibble
