// What a step on the CPU says of itself.
#include "backends/cpu/cpu_step.h"

#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "backends/step_program.h"

namespace nibble {
namespace {

TEST(CpuStep, PhasesBytesAndProfiling) {
  StepProgram p(1);
  const Slice x = p.random_input("x", 96);
  p.step.logits = p.step.buffer("out", 37);
  const WeightId norm = p.vector(96), w = p.matrix(FormatId::mxfp4, 37, 96);
  const Slice normed = p.step.buffer("normed", 96);
  p.step.rms_norm({.x = x, .weight = norm, .out = normed, .eps = 1e-5f});
  p.step.linear({.x = normed, .w = w, .out = p.step.logits});

  const auto backend = make_cpu_backend(2);
  std::vector<std::unique_ptr<PackedWeight>> packed;
  packed.push_back(backend->pack(random_weight(FormatId::f32, 1, 32, 96, 1, 1)));
  packed.push_back(backend->pack_vector(random_activations(96, 2)));
  packed.push_back(backend->pack(random_weight(FormatId::mxfp4, 1, 37, 96, 1, 3)));
  std::vector<const PackedWeight*> pointers;
  for (const auto& weight : packed) pointers.push_back(weight.get());
  const auto step = backend->compile(p.step, pointers, p.cache_shape);
  const auto cache = backend->make_kv_cache(p.cache_shape);
  EXPECT_EQ(step->weight_bytes(), packed[2]->bytes);  // of the embedding a step reads one row
  EXPECT_GE(step->scratch_bytes(), (96 + 37 + 96) * 4);
  auto phases = step->phases();
  ASSERT_EQ(phases.size(), 2u);
  EXPECT_EQ(phases[0].name, "embed");
  EXPECT_EQ(phases[1].name, "rms_norm + linear (gemv)");
  EXPECT_EQ(phases[1].weight_bytes, packed[2]->bytes);

  const int32_t token = 3, pos = 0, sequence = 0;
  std::vector<float> out(37);
  const auto run = [&] { step->run({{&token, 1}, {&pos, 1}, {&sequence, 1}}, *cache, out); };
  run();
  EXPECT_EQ(step->phases()[1].seconds, 0);
  step->set_profiling(true);
  run();
  const double seconds = step->phases()[1].seconds;
  EXPECT_GT(seconds, 0);
  step->set_profiling(false);
  run();
  EXPECT_EQ(step->phases()[1].seconds, seconds);
}

// Of more tokens than each worker prepares for itself.
std::string phases_of_many(FormatId format, bool has_norm) {
  StepProgram p(kRedundantTokens + 1);
  const Slice x = p.random_input("x", 96), normed = p.step.buffer("normed", 96);
  p.step.logits = p.step.buffer("out", 37);
  if (has_norm) p.step.rms_norm({.x = x, .weight = p.vector(96), .out = normed, .eps = 1e-5f});
  p.step.linear({.x = has_norm ? normed : x, .w = p.matrix(format, 37, 96), .out = p.step.logits});
  const auto backend = make_cpu_backend(2);
  const auto packed = p.pack(*backend);
  std::vector<const PackedWeight*> pointers;
  for (const auto& weight : packed) pointers.push_back(weight.get());
  const auto step = backend->compile(p.step, pointers, p.cache_shape);
  std::string names;
  for (const Phase& phase : step->phases()) names += (names.empty() ? "" : ", ") + phase.name;
  return names;
}

TEST(CpuStep, RoundsWhatAMatrixTakesRounded) {
  EXPECT_EQ(phases_of_many(FormatId::mxfp4, false), "embed, round, linear (batched)");
  EXPECT_EQ(phases_of_many(FormatId::mxfp4, true), "embed, rms_norm + round, rms_norm + linear (batched)");
  EXPECT_EQ(phases_of_many(FormatId::bf16, false), "embed, linear (batched)");
  EXPECT_EQ(phases_of_many(FormatId::bf16, true), "embed, rms_norm, rms_norm + linear (batched)");
}

}  // namespace
}  // namespace nibble
