// What a step on Metal says of itself.
#include <gtest/gtest.h>

#include "backends/packed_program.h"
#include "backends/step_comparison.h"

namespace nibble {
namespace {

TEST(MetalStep, PhasesBytesAndProfiling) {
  StepProgram p(1);
  const Slice x = p.random_input("x", 96), normed = p.step.buffer("normed", 96);
  p.step.logits = p.step.buffer("out", 37);
  const WeightId w = p.matrix(FormatId::mxfp4, 37, 96);
  p.step.rms_norm({.x = x, .weight = p.vector(96), .out = normed, .eps = 1e-5f});
  p.step.linear({.x = normed, .w = w, .out = p.step.logits});
  const auto backend = std::move(backends_under_test()[0]);
  PackedProgram program(p, *backend);

  const int64_t bytes = program.packed[static_cast<size_t>(w.index)]->bytes;
  EXPECT_EQ(bytes, 1792 + 128 + 37 * 4);           // rows of 48 bytes and 3 scales, each plane to whole lines; factors
  EXPECT_EQ(program.step->weight_bytes(), bytes);  // of the embedding a step reads one row
  EXPECT_EQ(program.step->last_weight_bytes(), bytes);
  EXPECT_GE(program.step->scratch_bytes(), (96 + 96 + 37) * 4);
  ASSERT_EQ(program.step->phases().size(), 2u);
  EXPECT_EQ(program.step->phases()[0].name, "embed (embed_f32)");
  EXPECT_EQ(program.step->phases()[1].name, "rms_norm + linear (linear_mxfp4)");
  EXPECT_EQ(program.step->phases()[1].weight_bytes, bytes);

  program.run({{3}});
  EXPECT_EQ(program.step->phases()[1].seconds, 0);
  program.step->set_profiling(true);
  program.run({{3}});
  const Phase phase = program.step->phases()[1];
  EXPECT_GT(phase.seconds, 0);
  EXPECT_EQ(phase.read_bytes, bytes);
  program.step->set_profiling(false);
  program.run({{3}});
  EXPECT_EQ(program.step->phases()[1].seconds, phase.seconds);
}

TEST(MetalStep, AnExpertThatSeveralTokensChoseCountsOnce) {
  StepProgram p(4);
  const Slice x = p.random_input("x", 32), hidden = p.step.buffer("hidden", 2 * 32);
  const Slice experts = p.step.buffer("experts", 2), weights = p.random_input("weights", 2);
  p.step.embed({.w = p.rows({0, 4, 4, 0, 2, 4, 0, 2}, 2), .out = experts});  // 0, 2 and 4 of 5
  p.step.logits = p.random_input("out", 32);
  const WeightId gate = p.matrix(random_weight(FormatId::nvfp4, 5, 32, 32, 1, 1));
  const WeightId up = p.matrix(random_weight(FormatId::nvfp4, 5, 32, 32, 1, 2));
  const WeightId down = p.matrix(random_weight(FormatId::mxfp4, 5, 32, 32, 1, 3));
  p.step.moe_gate_up({.x = x, .gate = gate, .up = up, .experts = experts, .out = hidden});
  p.step.moe_down({.x = hidden, .down = down, .experts = experts, .expert_weights = weights, .out = p.step.logits});
  const auto backend = std::move(backends_under_test()[0]);
  PackedProgram program(p, *backend);
  int64_t one = 0;
  for (WeightId w : {gate, up, down}) one += program.packed[static_cast<size_t>(w.index)]->bytes / 5;
  EXPECT_EQ(program.step->weight_bytes(), 5 * one);  // as if no two tokens chose the same
  program.run({{0}, {1, 1}, {2, 2}, {3, 3}});
  EXPECT_EQ(program.step->last_weight_bytes(), 3 * one);
  const auto phases = program.step->phases();
  EXPECT_EQ(phases[phases.size() - 3].name, "moe_gate_up (gate_up_pairs_nvfp4)");
  EXPECT_EQ(phases[phases.size() - 2].name, "moe_down (moe_down_pairs_mxfp4)");
}

}  // namespace
}  // namespace nibble
