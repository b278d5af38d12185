// What is fused, what must not be, and that neither changes a value.
#include "backends/cpu/fuse.h"

#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "backends/step_program.h"

namespace nibble {
namespace {

using Names = std::vector<std::string>;

Names groups(const Step& step) {
  Names names;
  for (const SideBySide& groups : fuse(step)) {
    std::string name;
    for (const OpGroup& group : groups) name += (name.empty() ? "" : " | ") + group_name(group);
    names.push_back(name);
  }
  return names;
}

// The CPU on 1, 2 and 3 threads against the reference, for the step as it is.
void expect_reference_values(const StepProgram& program) {
  const auto expected = program.run(*make_reference_backend(), program.one_run());
  float largest = 0;
  for (float value : expected) largest = std::max(largest, std::fabs(value));
  std::vector<float> first;
  for (int num_threads : {1, 2, 3}) {
    const auto values = program.run(*make_cpu_backend(num_threads), program.one_run());
    ASSERT_EQ(values.size(), expected.size());
    for (size_t i = 0; i < values.size(); i++)
      ASSERT_NEAR(values[i], expected[i], 1e-3f * largest) << i << ", " << num_threads << " threads";
    if (first.empty()) first = values;
    EXPECT_EQ(values, first) << num_threads << " threads";
  }
}

// One layer of a decoder, as the models record it: hidden 40, intermediate 56, 3 heads of 10 over 1 key head.
struct Layer {
  StepProgram& p;
  Slice x, normed, q, k, v, attended, gate, up, hidden;
  int rotation;

  explicit Layer(StepProgram& program) : p(program) {
    x = p.random_input("x", 40);
    normed = p.step.buffer("normed", 40);
    q = p.step.buffer("q", 30);
    k = p.step.buffer("k", 10);
    v = p.step.buffer("v", 10);
    attended = p.step.buffer("attended", 30);
    gate = p.step.buffer("gate", 56);
    up = p.step.buffer("up", 56);
    hidden = p.step.buffer("hidden", 56);
    rotation = p.step.rotation({{1.0f, 0.5f, 0.25f, 0.125f, 0.0625f}});
    p.cache_shape.layers = {{10, 10}};
  }

  void norm(Slice from, Slice to) { p.step.rms_norm({.x = from, .weight = p.vector(40), .out = to, .eps = 1e-5f}); }
  void linear(Slice from, Slice to, bool accumulate = false) {
    p.step.linear({.x = from,
                   .w = p.matrix(FormatId::bf16, to.width, from.width),
                   .bias = p.vector(to.width),
                   .out = to,
                   .accumulate = accumulate});
  }
  void rope(Slice heads, int64_t num_heads) {
    p.step.rope({.x = heads, .num_heads = num_heads, .head_dim = 10, .rotation = rotation});
  }
  void attend() {
    p.step.attention(
        {.q = q, .layer = 0, .num_heads = 3, .num_kv_heads = 1, .head_dim = 10, .scale = 0.3f, .out = attended});
  }
  void attention_block(bool normalise_heads) {
    norm(x, normed);
    linear(normed, q);
    linear(normed, k);
    linear(normed, v);
    if (normalise_heads) {
      p.step.rms_norm({.x = q, .weight = p.vector(10), .out = q, .eps = 1e-5f, .num_heads = 3});
      p.step.rms_norm({.x = k, .weight = p.vector(10), .out = k, .eps = 1e-5f, .num_heads = 1});
    }
    rope(q, 3);
    rope(k, 1);
    p.step.kv_append({.k = k, .v = v, .layer = 0});
    attend();
    linear(attended, x, true);
  }
  void gate_and_up() {
    linear(normed, gate);
    linear(normed, up);
    p.step.swiglu({.gate = gate, .up = up, .out = hidden});
  }
  void mlp_block() {
    norm(x, normed);
    gate_and_up();
    linear(hidden, x, true);
  }
  void output_block() {
    const Slice last = p.step.buffer("last", 40, Rows::logits);
    const Slice last_normed = p.step.buffer("last_normed", 40, Rows::logits);
    p.step.logits = p.step.buffer("logits", 29, Rows::logits);
    p.step.select_logits({.x = x, .out = last});
    norm(last, last_normed);
    linear(last_normed, p.step.logits);
  }
};

class Fuse : public testing::TestWithParam<int64_t> {
 protected:
  StepProgram p{GetParam()};
  Layer layer{p};

  void expect_groups(const Names& names) {
    EXPECT_EQ(groups(p.step), names);
    expect_reference_values(p);
  }
};

INSTANTIATE_TEST_SUITE_P(Tokens, Fuse, testing::Values(1, 5, 13));

TEST_P(Fuse, ALlama) {
  layer.attention_block(false);
  layer.mlp_block();
  layer.output_block();
  expect_groups({"embed", "rms_norm + 3 linears", "rope + rope + kv_append + attention", "linear",
                 "rms_norm + 2 linears + swiglu", "linear", "select_logits", "rms_norm + linear"});
}

TEST_P(Fuse, AQwen3) {
  layer.attention_block(true);
  layer.mlp_block();
  layer.output_block();
  expect_groups({"embed", "rms_norm + 3 linears", "rms_norm + rms_norm + rope + rope + kv_append + attention", "linear",
                 "rms_norm + 2 linears + swiglu", "linear", "select_logits", "rms_norm + linear"});
}

TEST_P(Fuse, ANormThatIsReadLaterIsKept) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.q);
  layer.linear(layer.q, layer.x);
  layer.linear(layer.normed, layer.x, true);
  p.step.logits = layer.x;
  expect_groups({"embed", "rms_norm + linear", "linear", "linear"});
}

TEST_P(Fuse, ANormWhosePartIsReadLaterIsKept) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.gate);
  layer.linear(layer.normed.columns(3, 10), layer.gate, true);
  p.step.logits = layer.gate;
  expect_groups({"embed", "rms_norm + linear", "linear"});
}

TEST_P(Fuse, ANormThatIsTheResultIsKept) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.q);
  p.step.logits = layer.normed;
  expect_groups({"embed", "rms_norm + linear"});
}

TEST_P(Fuse, ANormThatIsWrittenAnewBeforeItIsReadMayGo) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.q);
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.q, true);
  p.step.logits = layer.q;
  expect_groups({"embed", "rms_norm + linear", "rms_norm + linear"});
}

TEST_P(Fuse, ALinearThatWritesWhatTheNormReadsIsKeptApart) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.x, true);
  p.step.logits = layer.x;
  expect_groups({"embed", "rms_norm", "linear"});
}

TEST_P(Fuse, ASwigluThatWritesWhatTheNormReadsIsKeptApart) {
  const Slice gate = layer.gate.columns(0, 40), up = layer.up.columns(0, 40);
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, gate);
  layer.linear(layer.normed, up);
  p.step.swiglu({.gate = gate, .up = up, .out = layer.x});
  p.step.logits = layer.x;
  expect_groups({"embed", "rms_norm", "2 linears + swiglu"});
}

TEST_P(Fuse, ANormInPlaceFusesUnlessItIsReadLater) {
  layer.norm(layer.x, layer.x);
  layer.linear(layer.x, layer.q);
  p.step.logits = layer.q;
  expect_groups({"embed", "rms_norm + linear"});
  layer.linear(layer.x, layer.q, true);
  layer.linear(layer.x.columns(0, 30), layer.q, true);
  expect_groups({"embed", "rms_norm", "linear", "linear", "linear"});
}

TEST_P(Fuse, LinearsThatWriteTheSameAreKeptApart) {
  layer.linear(layer.x, layer.q);
  layer.linear(layer.x, layer.q, true);
  layer.linear(layer.x, layer.gate.columns(0, 20));
  layer.linear(layer.x, layer.gate.columns(20, 36));
  layer.linear(layer.x, layer.gate.columns(10, 20), true);
  layer.linear(layer.gate, layer.q, true);
  p.step.logits = layer.q;
  expect_groups({"embed", "linear", "3 linears", "linear", "linear"});
}

TEST_P(Fuse, LinearsOfDifferentColumnsAreKeptApart) {
  layer.linear(layer.x.columns(0, 20), layer.q);
  layer.linear(layer.x.columns(20, 20), layer.k);
  layer.linear(layer.k, layer.q, true);
  p.step.logits = layer.q;
  expect_groups({"embed", "linear", "linear", "linear"});
}

TEST_P(Fuse, OnlyTheSwigluOfBothLinearsInTheirOrderJoins) {
  layer.linear(layer.x, layer.gate);
  layer.linear(layer.x, layer.up);
  p.step.swiglu({.gate = layer.up, .up = layer.gate, .out = layer.hidden});
  p.step.logits = layer.hidden;
  expect_groups({"embed", "2 linears", "swiglu"});
}

TEST_P(Fuse, ASwigluAfterThreeLinearsStandsAlone) {
  layer.linear(layer.x, layer.gate);
  layer.linear(layer.x, layer.up);
  layer.linear(layer.x, layer.q);
  p.step.swiglu({.gate = layer.gate, .up = layer.up, .out = layer.hidden});
  p.step.logits = layer.hidden;
  expect_groups({"embed", "3 linears", "swiglu"});
}

TEST_P(Fuse, ASwigluOfSumsStandsAlone) {
  p.step.embed({.w = p.matrix(FormatId::f32, 32, 56), .out = layer.gate});
  layer.linear(layer.x, layer.gate, true);
  layer.linear(layer.x, layer.up);
  p.step.swiglu({.gate = layer.gate, .up = layer.up, .out = layer.hidden});
  p.step.logits = layer.hidden;
  expect_groups({"embed | embed", "2 linears", "swiglu"});
}

TEST_P(Fuse, ASwigluMayWriteOverItsGate) {
  layer.linear(layer.x, layer.gate);
  layer.linear(layer.x, layer.up);
  p.step.swiglu({.gate = layer.gate, .up = layer.up, .out = layer.gate});
  p.step.logits = layer.gate;
  expect_groups({"embed", "2 linears + swiglu"});
}

TEST_P(Fuse, GateAndUpMayBeReadLater) {
  layer.linear(layer.x, layer.gate);
  layer.linear(layer.x, layer.up);
  p.step.swiglu({.gate = layer.gate, .up = layer.up, .out = layer.hidden});
  p.step.swiglu({.gate = layer.hidden, .up = layer.gate, .out = layer.hidden});
  p.step.logits = layer.hidden;
  expect_groups({"embed", "2 linears + swiglu", "swiglu"});
}

// ---- attention ----

TEST_P(Fuse, HeadsOfAnotherNumberAreKeptApart) {
  // The norm goes over all of q at once: no head is ready before all are.
  layer.linear(layer.x, layer.q);
  layer.linear(layer.x, layer.k);
  layer.linear(layer.x, layer.v);
  p.step.rms_norm({.x = layer.q, .weight = p.vector(30), .out = layer.q, .eps = 1e-5f});
  layer.rope(layer.q, 3);
  p.step.kv_append({.k = layer.k, .v = layer.v, .layer = 0});
  layer.attend();
  p.step.logits = layer.attended;
  expect_groups({"embed", "3 linears", "rms_norm", "rope + kv_append + attention"});
}

TEST_P(Fuse, ARotationOfSomeOfTheQueriesIsKeptApart) {
  // It looks like keys, but the worker that turns it is not the one that needs it.
  layer.linear(layer.x, layer.q);
  layer.linear(layer.x, layer.k);
  layer.linear(layer.x, layer.v);
  layer.rope(layer.q.columns(10, 10), 1);
  p.step.kv_append({.k = layer.k, .v = layer.v, .layer = 0});
  layer.attend();
  p.step.logits = layer.attended;
  expect_groups({"embed", "3 linears", "rope", "kv_append + attention"});
}

TEST_P(Fuse, QueriesMayBeUsedTwice) {
  layer.linear(layer.x, layer.q);
  layer.linear(layer.x, layer.k);
  layer.linear(layer.x, layer.v);
  layer.rope(layer.q, 3);
  p.step.kv_append({.k = layer.k, .v = layer.v, .layer = 0});
  layer.attend();
  layer.rope(layer.q, 3);
  layer.linear(layer.attended, layer.x);
  layer.attend();
  layer.linear(layer.attended, layer.x, true);
  layer.linear(layer.q, layer.x, true);
  p.step.logits = layer.x;
  expect_groups(
      {"embed", "3 linears", "rope + kv_append + attention", "rope | linear", "attention", "linear", "linear"});
}

TEST_P(Fuse, AnotherLayersAppendIsKeptApart) {
  p.cache_shape.layers = {{10, 10}, {10, 10}};
  layer.linear(layer.x, layer.q);
  layer.linear(layer.x, layer.k);
  layer.linear(layer.x, layer.v);
  p.step.kv_append({.k = layer.k, .v = layer.v, .layer = 0});
  p.step.kv_append({.k = layer.v, .v = layer.k, .layer = 1});
  layer.attend();
  p.step.logits = layer.attended;
  expect_groups({"embed", "3 linears", "kv_append + kv_append", "attention"});
}

// Latent attention: 3 heads of 11 + 10, latents of 20, of which positions have 10 more.
TEST_P(Fuse, LatentAttention) {
  p.cache_shape.layers = {{30, 0}};
  const Slice q = p.step.buffer("q", 63), latent = p.step.buffer("latent", 30), q_a = p.step.buffer("q_a", 24);
  const Slice q_latent = p.step.buffer("q_latent", 60), out_latent = p.step.buffer("out_latent", 60);
  const auto matrix = [&](int64_t N, int64_t K) { return p.matrix(random_weight(FormatId::bf16, 3, N, K, 1, 5)); };
  const auto norm = [&](Slice x, int64_t width) {
    p.step.rms_norm({.x = x, .weight = p.vector(width), .out = x, .eps = 1e-5f});
  };
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, latent);
  layer.linear(layer.normed, q_a);
  norm(q_a, 24);
  layer.linear(q_a, q);
  norm(latent.columns(0, 20), 20);
  layer.rope(latent.columns(20, 10), 1);
  p.step.kv_append({.k = latent, .v = {}, .layer = 0});
  p.step.rope({.x = q, .num_heads = 3, .head_dim = 21, .rotation = layer.rotation, .first = 11});
  p.step.head_linear({.x = q, .w = matrix(20, 11), .num_heads = 3, .out = q_latent, .K = 11});
  p.step.latent_attention({.q_latent = q_latent,
                           .q = q,
                           .layer = 0,
                           .num_heads = 3,
                           .latent_dim = 20,
                           .rope_dim = 10,
                           .scale = 0.3f,
                           .out = out_latent});
  p.step.head_linear({.x = out_latent, .w = matrix(10, 20), .num_heads = 3, .out = layer.attended, .K = 20});
  layer.linear(layer.attended, layer.x, true);
  p.step.logits = layer.x;
  expect_groups({"embed", "rms_norm + 2 linears", "rms_norm + linear | rms_norm + rope + kv_append",
                 "rope | head_linear", "latent_attention", "head_linear", "linear"});
}

TEST_P(Fuse, ARotationOfWhatHeadsReadStandsAlone) {
  const Slice q = p.step.buffer("q", 63), q_latent = p.step.buffer("q_latent", 60);
  layer.linear(layer.x, q);
  for (const int64_t K : {int64_t{0}, int64_t{12}}) {  // not known; one column too many
    p.step.rope({.x = q, .num_heads = 3, .head_dim = 21, .rotation = layer.rotation, .first = 11});
    p.step.head_linear({.x = q,
                        .w = p.matrix(random_weight(FormatId::bf16, 3, 20, 12, 1, 5)),
                        .num_heads = 3,
                        .out = q_latent,
                        .K = K});
  }
  p.step.logits = q_latent;
  expect_groups({"embed", "linear", "rope", "head_linear", "rope", "head_linear"});
}

TEST_P(Fuse, GateAndUpMayFollowAnotherLinear) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.q);
  layer.gate_and_up();
  layer.linear(layer.hidden, layer.x, true);
  layer.linear(layer.q, layer.attended);
  layer.linear(layer.attended, layer.x, true);
  p.step.logits = layer.x;
  expect_groups({"embed", "rms_norm + 3 linears + swiglu", "linear", "linear", "linear"});
}

TEST_P(Fuse, ASwigluThatWritesOverAnotherLinearStandsAlone) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, layer.hidden);
  layer.gate_and_up();
  layer.linear(layer.hidden, layer.x, true);
  p.step.logits = layer.x;
  expect_groups({"embed", "rms_norm + 3 linears", "swiglu", "linear"});
}

// Two of six experts of 24 beside the layer's own gate, up and hidden.
class FuseExperts : public Fuse {
 protected:
  const Slice router = p.step.buffer("router", 6), experts = p.step.buffer("experts", 2),
              weights = p.step.buffer("weights", 2), expert_hidden = p.step.buffer("expert_hidden", 2 * 24);

  WeightId matrix(int64_t N, int64_t K) { return p.matrix(random_weight(FormatId::bf16, 6, N, K, 1, 5)); }
  void route() {
    p.step.route({.logits = router, .scores = RouterScores::softmax, .experts = experts, .expert_weights = weights});
  }
  void experts_gate_and_up(Slice out) {
    p.step.moe_gate_up(
        {.x = layer.normed, .gate = matrix(24, 40), .up = matrix(24, 40), .experts = experts, .out = out});
  }
  void down(Slice hidden) {
    p.step.moe_down(
        {.x = hidden, .down = matrix(40, 24), .experts = experts, .expert_weights = weights, .out = layer.x});
    p.step.logits = layer.x;
  }
};

INSTANTIATE_TEST_SUITE_P(Tokens, FuseExperts, testing::Values(1, 2, 13));

TEST_P(FuseExperts, OfOneTokenEveryWorkerChooses) {
  for (int twice = 0; twice < 2; twice++) {
    layer.norm(layer.x, layer.normed);
    layer.linear(layer.normed, router);
    route();
    experts_gate_and_up(expert_hidden);
    down(expert_hidden);
  }
  expect_groups(GetParam() == 1 ? Names{"embed", "rms_norm + linear", "route + moe_gate_up", "moe_down",
                                        "rms_norm + linear", "route + moe_gate_up", "moe_down"}
                                : Names{"embed", "rms_norm + linear", "route", "moe_gate_up", "moe_down",
                                        "rms_norm + linear", "route", "moe_gate_up", "moe_down"});
}

TEST_P(FuseExperts, ASharedExpertStandsBesideTheOthers) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, router);
  route();
  layer.gate_and_up();
  experts_gate_and_up(expert_hidden);
  layer.linear(layer.hidden, layer.x, true);
  down(expert_hidden);
  expect_groups(
      GetParam() == 1
          ? Names{"embed", "rms_norm + 3 linears + swiglu", "route + moe_gate_up | linear", "moe_down"}
          : Names{"embed", "rms_norm + linear", "route | 2 linears + swiglu", "moe_gate_up | linear", "moe_down"});
}

TEST_P(FuseExperts, AChoiceThatIsReadInBetweenComesBefore) {
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, router);
  route();
  layer.linear(experts, layer.q);
  experts_gate_and_up(expert_hidden);
  layer.linear(layer.q, layer.x, true);
  down(expert_hidden);
  expect_groups({"embed", "rms_norm + linear", "route", "linear | moe_gate_up", "linear", "moe_down"});
}

TEST_P(FuseExperts, LogitsThatExpertsOverwriteAreReadBefore) {
  const Slice shared = p.step.buffer("shared", 48);
  layer.norm(layer.x, layer.normed);
  layer.linear(layer.normed, shared.columns(0, 6));
  p.step.route(
      {.logits = shared.columns(0, 6), .scores = RouterScores::softmax, .experts = experts, .expert_weights = weights});
  experts_gate_and_up(shared);
  down(shared);
  expect_groups({"embed", "rms_norm + linear", "route", "moe_gate_up", "moe_down"});
}

TEST_P(Fuse, WhatNeedsOnlyATokensOwnRowsRunsTogether) {
  const Slice normed_q = p.step.buffer("normed_q", 30), last = p.step.buffer("last", 30, Rows::logits);
  layer.linear(layer.x, layer.q);
  p.step.rms_norm({.x = layer.q, .weight = p.vector(30), .out = normed_q, .eps = 1e-5f});
  layer.rope(normed_q, 3);
  layer.rope(layer.q, 3);
  p.step.swiglu({.gate = layer.q, .up = normed_q, .out = layer.q});
  p.step.select_logits({.x = layer.q, .out = last});  // other tokens' rows
  p.step.rms_norm({.x = last, .weight = p.vector(30), .out = last, .eps = 1e-5f});
  p.step.logits = last;
  expect_groups({"embed", "linear", "rms_norm + rope + rope + swiglu", "select_logits", "rms_norm"});
}

}  // namespace
}  // namespace nibble
