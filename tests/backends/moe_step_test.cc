// The ops of mixtures of experts and of latent attention, sinks and windows: the reference against values worked out by
// hand, and the backend under test against the reference, over awkward shapes.
#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "backends/step_comparison.h"

namespace nibble {
namespace {

void expect_both(const StepProgram& program, const Runs& runs, const std::vector<float>& expected) {
  expect_near(program.run(*make_reference_backend(), runs), expected, 1e-6f);
  expect_near(backend_values(program, runs), expected, 1e-6f);
}

// A buffer whose row for token m is row m of `values`.
Slice given_rows(StepProgram& p, const char* name, const std::vector<float>& values, int64_t width) {
  const Slice out = p.step.buffer(name, width);
  p.step.embed({.w = p.rows(values, width), .out = out});
  return out;
}

// ---- route ----

// Chooses for one token; the result is the experts, then their weights.
StepProgram route_program(const std::vector<float>& logits, RouteOp op, int64_t top_k,
                          const std::vector<float>& bias = {}) {
  StepProgram p(1);
  op.logits = given_rows(p, "logits", logits, static_cast<int64_t>(logits.size()));
  p.step.logits = p.step.buffer("routed", 2 * top_k);
  op.experts = p.step.logits.columns(0, top_k);
  op.expert_weights = p.step.logits.columns(top_k, top_k);
  if (!bias.empty()) op.correction_bias = p.vector(bias);
  p.step.route(op);
  return p;
}

float log_of(double x) { return static_cast<float>(std::log(x)); }
float logit_of(double p) { return static_cast<float>(std::log(p / (1 - p))); }

TEST(Route, SoftmaxWeighsTheBest) {
  const std::vector<float> logits = {log_of(0.1), log_of(0.4), log_of(0.2), log_of(0.3)};
  const RouteOp plain{.scores = RouterScores::softmax, .normalise = false};
  expect_both(route_program(logits, plain, 2), {{{0}}}, {1, 3, 0.4f, 0.3f});
  const RouteOp normalised{.scores = RouterScores::softmax, .normalise = true, .scale = 2.0f};
  expect_both(route_program(logits, normalised, 2), {{{0}}}, {1, 3, 2 * 4.0f / 7, 2 * 3.0f / 7});
  expect_both(route_program(logits, normalised, 4), {{{0}}}, {1, 3, 2, 0, 0.8f, 0.6f, 0.4f, 0.2f});
  expect_both(route_program({-3.0f}, normalised, 1), {{{0}}}, {0, 2});
}

TEST(Route, OfEqualsTheLowerNumberIsChosen) {
  const RouteOp op{.scores = RouterScores::softmax};
  expect_both(route_program({1, 2, 2, 1, 2}, op, 4), {{{0}}},
              {1, 2, 4, 0, 1 / (3 + std::exp(-1.0f)), 1 / (3 + std::exp(-1.0f)), 1 / (3 + std::exp(-1.0f)),
               std::exp(-1.0f) / (3 + std::exp(-1.0f))});
}

TEST(Route, TheCorrectionBiasChoosesAndDoesNotWeigh) {
  const std::vector<float> logits = {logit_of(0.9), logit_of(0.5), logit_of(0.2), logit_of(0.6)};
  RouteOp op{.scores = RouterScores::sigmoid, .normalise = false, .scale = 2.5f};
  expect_both(route_program(logits, op, 2, {-0.5f, 0, 0.55f, 0}), {{{0}}}, {2, 3, 0.5f, 1.5f});
  op.normalise = true;
  expect_both(route_program(logits, op, 2, {-0.5f, 0, 0.55f, 0}), {{{0}}}, {2, 3, 0.625f, 1.875f});
}

TEST(Route, GroupsAreWorthTheirTwoBest) {
  // Sums of two: 0.9 + 0.1, 0.6 + 0.5, 0.55 + 0.3; the best expert is in a group that is left out.
  const std::array<double, 9> scores = {0.9, 0.1, 0.05, 0.6, 0.5, 0.1, 0.55, 0.3, 0.2};
  std::vector<float> logits;
  for (double score : scores) logits.push_back(logit_of(score));
  RouteOp op{.scores = RouterScores::sigmoid, .num_groups = 3, .top_groups = 1, .normalise = false};
  expect_both(route_program(logits, op, 2), {{{0}}}, {3, 4, 0.6f, 0.5f});
  op.top_groups = 2;
  expect_both(route_program(logits, op, 3), {{{0}}}, {0, 3, 4, 0.9f, 0.6f, 0.5f});
  op.num_groups = 9;  // groups of one
  expect_both(route_program(logits, op, 2), {{{0}}}, {0, 3, 0.9f, 0.6f});
}

TEST(Route, BadLogitsStillChooseExpertsThatExist) {
  for (const std::vector<float>& logits : {std::vector<float>{kNan, kNan, kNan, kNan},
                                           {1, kNan, 3, 2},
                                           {kInfinity, 0, kInfinity, 1},
                                           {-kInfinity, -kInfinity, 0, 1}}) {
    for (RouterScores scores : {RouterScores::softmax, RouterScores::sigmoid}) {
      const StepProgram p = route_program(logits, {.scores = scores, .num_groups = 2, .top_groups = 2}, 4);
      std::vector<float> values = backend_values(p, {{{0}}});
      values.resize(4);
      std::ranges::sort(values);
      EXPECT_EQ(values, (std::vector<float>{0, 1, 2, 3}));
      std::vector<float> reference = p.run(*make_reference_backend(), {{{0}}});
      reference.resize(4);
      std::ranges::sort(reference);
      EXPECT_EQ(reference, values);
    }
  }
}

// ---- experts ----

TEST(Experts, TheClampedActivationByHand) {
  // One expert, gate and up both the identity: out = down * act(x) + bias, down the identity.
  StepProgram p(1);
  const Slice x = given_rows(p, "x", {0.5f, 9.0f, -9.0f, -20.0f}, 4);
  const std::vector<float> identity = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const Slice experts = given_rows(p, "experts", {0}, 1), weights = given_rows(p, "weights", {0.5f}, 1);
  const Slice hidden = p.step.buffer("hidden", 4);
  p.step.logits = given_rows(p, "out", {1, 2, 3, 4}, 4);
  p.step.moe_gate_up({.x = x,
                      .gate = p.rows(identity, 4),
                      .up = p.rows(identity, 4),
                      .gate_bias = p.vector({0, 0, 0, 0}),
                      .up_bias = p.vector({0.25f, 0, 0, 0}),
                      .experts = experts,
                      .activation = ExpertActivation::clamped,
                      .alpha = 1.702f,
                      .limit = 7.0f,
                      .out = hidden});
  p.step.moe_down({.x = hidden,
                   .down = p.rows(identity, 4),
                   .bias = p.vector({10, 0, 0, 0}),
                   .experts = experts,
                   .expert_weights = weights,
                   .out = p.step.logits});
  const auto act = [](double gate, double up) {  // both clamped by hand
    return static_cast<float>(gate / (1 + std::exp(-1.702 * gate)) * (up + 1));
  };
  const std::vector<float> expected = {1 + 0.5f * (act(0.5, 0.75) + 10), 2 + 0.5f * act(7, 7), 3 + 0.5f * act(-9, -7),
                                       4 + 0.5f * act(-20, -7)};
  expect_near(p.run(*make_reference_backend(), {{{0}}}), expected, 1e-6f);
  expect_near(backend_values(p, {{{0}}}), expected, 1e-6f);
}

struct MoeCase {
  int64_t M, E, top_k, I, H;
  FormatId format = FormatId::nvfp4;
  bool clamped = false;
};

StepProgram moe_program(const MoeCase& c) {
  StepProgram p(c.M);
  const Slice x = p.random_input("x", c.H);
  const Slice logits = p.random_input("logits", c.E);
  const Slice out = p.random_input("out", c.H);
  const Slice experts = p.step.buffer("experts", c.top_k), weights = p.step.buffer("weights", c.top_k);
  const Slice hidden = p.step.buffer("hidden", c.top_k * c.I);
  const auto matrix = [&](int64_t N, int64_t K, uint32_t seed) {
    return p.matrix(random_weight(c.format, c.E, N, K, 1, seed));
  };
  p.step.route({.logits = logits, .scores = RouterScores::softmax, .experts = experts, .expert_weights = weights});
  MoeGateUpOp gate_up{
      .x = x, .gate = matrix(c.I, c.H, 101), .up = matrix(c.I, c.H, 102), .experts = experts, .out = hidden};
  MoeDownOp down{.x = hidden, .down = matrix(c.H, c.I, 103), .experts = experts, .expert_weights = weights, .out = out};
  if (c.clamped) {
    gate_up.activation = ExpertActivation::clamped;
    gate_up.alpha = 1.702f;
    gate_up.limit = 7.0f;
    gate_up.gate_bias = p.vector(c.E * c.I);
    gate_up.up_bias = p.vector(c.E * c.I);
    down.bias = p.vector(c.E * c.H);
  }
  p.step.moe_gate_up(gate_up);
  p.step.moe_down(down);
  p.step.logits = out;
  return p;
}

TEST(Experts, GiveWhatTheReferenceGives) {
  for (const MoeCase& c : {
           MoeCase{.M = 1, .E = 1, .top_k = 1, .I = 32, .H = 64},  // one expert
           MoeCase{.M = 5, .E = 1, .top_k = 1, .I = 96, .H = 32},  // for many tokens
           MoeCase{.M = 1, .E = 4, .top_k = 4, .I = 48, .H = 80},  // all of them
           MoeCase{.M = 3, .E = 4, .top_k = 4, .I = 48, .H = 80},
           MoeCase{.M = 2, .E = 40, .top_k = 3, .I = 32, .H = 96, .format = FormatId::mxfp4},  // more than tokens
           MoeCase{.M = 1, .E = 24, .top_k = 11, .I = 32, .H = 32},                            // more than a tile
           MoeCase{.M = 31, .E = 6, .top_k = 2, .I = 80, .H = 96, .format = FormatId::mxfp4, .clamped = true},
           MoeCase{.M = 1, .E = 6, .top_k = 2, .I = 80, .H = 112, .format = FormatId::nvfp4, .clamped = true},
           MoeCase{.M = 9, .E = 3, .top_k = 2, .I = 17, .H = 5, .format = FormatId::bf16, .clamped = true},
           MoeCase{.M = 4, .E = 5, .top_k = 1, .I = 1, .H = 1, .format = FormatId::f32},
           MoeCase{.M = 7, .E = 5, .top_k = 2, .I = 64, .H = 96, .format = FormatId::q8_0},
       }) {
    SCOPED_TRACE(fmt::format("M {} E {} top_k {} I {} H {} {}", c.M, c.E, c.top_k, c.I, c.H, format_name(c.format)));
    const StepProgram p = moe_program(c);
    expect_reference(p, p.one_run(), 2e-3f);  // two roundings in a row, and outliers
  }
}

TEST(Experts, ATokenDoesNotDependOnItsNeighbours) {
  for (FormatId format : {FormatId::mxfp4, FormatId::nvfp4, FormatId::bf16}) {
    const StepProgram together = moe_program({.M = 21, .E = 5, .top_k = 3, .I = 64, .H = 96, .format = format});
    const StepProgram alone = moe_program({.M = 1, .E = 5, .top_k = 3, .I = 64, .H = 96, .format = format});
    Runs one_by_one;
    for (int32_t m = 0; m < 21; m++) one_by_one.push_back({{m, m, 0}});
    EXPECT_EQ(backend_values(together, together.one_run()), backend_values(alone, one_by_one)) << format_name(format);
  }
}

TEST(Experts, NothingIsReadOfAnExpertThatNobodyChose) {
  for (int64_t M : {1, 6}) {
    StepProgram p(M);
    const Slice x = p.random_input("x", 8), out = p.random_input("out", 8), hidden = p.step.buffer("hidden", 8);
    const Slice experts = given_rows(p, "experts", {0, 2, 2, 0, 2, 2}, 1);
    const Slice weights = given_rows(p, "weights", {1, 1, 1, 1, 1, 1}, 1);
    const auto matrix = [&] {  // of expert 1 all is NaN
      CanonicalWeight w = random_weight(FormatId::f32, 3, 8, 8, 1, 7);
      auto bytes = std::make_shared<std::vector<uint8_t>>(w.codes.begin(), w.codes.end());
      for (size_t i = 64; i < 128; i++) std::memcpy(bytes->data() + 4 * i, &kNan, 4);
      w.codes = *bytes;
      w.storage = bytes;
      return p.matrix(w);
    };
    p.step.moe_gate_up({.x = x, .gate = matrix(), .up = matrix(), .experts = experts, .out = hidden});
    p.step.moe_down({.x = hidden, .down = matrix(), .experts = experts, .expert_weights = weights, .out = out});
    p.step.logits = out;
    for (float value : backend_values(p, p.one_run())) EXPECT_TRUE(std::isfinite(value));
    expect_reference(p, p.one_run(), 1e-5f);
  }
}

// ---- heads and latents ----

TEST(HeadLinear, EachHeadHasItsOwnMatrix) {
  for (int64_t M : {1, 3, 17}) {
    for (const auto& [heads, N, K] : {std::array<int64_t, 3>{1, 16, 32}, {5, 33, 24}, {4, 1, 7}, {2, 64, 96}}) {
      for (FormatId format :
           {FormatId::f32, FormatId::bf16, FormatId::mxfp4, FormatId::mxfp4_transposed, FormatId::nvfp4_transposed}) {
        if (format == FormatId::mxfp4 && K % 32 != 0) continue;
        StepProgram p(M);
        const Slice x = p.random_input("x", heads * (K + 3) + 1).columns(1, heads * (K + 3));
        p.step.logits = p.step.buffer("out", heads * N);
        p.step.head_linear({.x = x,
                            .w = p.matrix(random_weight(format, heads, N, K, 1, 5)),
                            .num_heads = heads,
                            .out = p.step.logits});
        expect_reference(p, p.one_run(), 2e-4f);
      }
    }
  }
}

TEST(HeadLinear, ByHand) {
  StepProgram p(1);
  const Slice x = given_rows(p, "x", {1, 2, 100, 3, 4, 100}, 6);  // two heads of 3, of which 2 are read
  auto values = std::make_shared<std::vector<float>>(std::vector<float>{1, 10, 2, 20});
  const WeightId w = p.matrix({.format = FormatId::f32,
                               .E = 2,
                               .N = 1,
                               .K = 2,
                               .codes = {reinterpret_cast<const uint8_t*>(values->data()), 16},
                               .scales = {},
                               .parts = {{0, {1.0f, 1.0f}}},
                               .storage = values});
  p.step.logits = p.step.buffer("out", 2);
  p.step.head_linear({.x = x, .w = w, .num_heads = 2, .out = p.step.logits});
  expect_both(p, {{{0}}}, {21, 86});
}

TEST(Rope, InterleavedPairsAndAnOffset) {
  StepProgram p(1);
  const Slice x = given_rows(p, "x", {9, 1, 2, 3, 4, 9}, 6);
  const float half_pi = 1.57079632679f;
  p.step.rope({.x = x,
               .num_heads = 1,
               .head_dim = 6,
               .rotation = p.step.rotation({{half_pi, 2 * half_pi}}),
               .first = 1,
               .interleaved = true});
  p.step.logits = x;
  expect_both(p, {{{0, 1, 0}}}, {9, -2, 1, -3, -4, 9});
  StepProgram many(9);
  const Slice y = many.random_input("y", 3 * 20);
  many.step.rope({.x = y,
                  .num_heads = 3,
                  .head_dim = 20,
                  .rotation = many.step.rotation({{1.0f, 0.3f, 0.1f, 0.01f}, 1.5f}),
                  .first = 12,
                  .interleaved = true});
  many.step.logits = y;
  expect_reference(many, many.one_run(), 1e-6f);
}

StepProgram latent_program(int64_t M, int64_t heads, int64_t latent, int64_t rope, KvCacheType type) {
  StepProgram p(M);
  p.cache_shape = {.layers = {{latent + rope, 0}}, .num_sequences = 2, .max_len = 40, .type = type};
  const Slice row = p.random_input("row", latent + rope);
  const Slice q_latent = p.random_input("q_latent", heads * latent);
  const Slice q = p.random_input("q", heads * (rope + 3));
  p.step.logits = p.step.buffer("out", heads * latent);
  p.step.kv_append({.k = row, .v = {}, .layer = 0});
  p.step.latent_attention({.q_latent = q_latent,
                           .q = q,
                           .layer = 0,
                           .num_heads = heads,
                           .latent_dim = latent,
                           .rope_dim = rope,
                           .scale = 0.1f,
                           .out = p.step.logits});
  return p;
}

TEST(LatentAttention, GiveWhatTheReferenceGives) {
  for (const auto& [heads, latent, rope] : {std::array<int64_t, 3>{1, 16, 8}, {5, 70, 6}, {3, 128, 64}, {2, 1, 2}}) {
    for (KvCacheType type : kv_cache_types_under_test()) {
      const StepProgram prefill = latent_program(13, heads, latent, rope, type);
      expect_reference(prefill, prefill.one_run(), attention_tolerance(type));
      const StepProgram two = latent_program(2, heads, latent, rope, type);  // two sequences side by side
      Runs runs;
      for (int32_t t = 0; t < 9; t++) runs.push_back({{t, t, 0}, {t + 9, t, 1}});
      expect_reference(two, runs, attention_tolerance(type));
    }
  }
}

TEST(LatentAttention, ByHand) {
  // Scores 0.1 * (1 * 5 + 10 * 1) = 1.5 and 0.1 * (1 * 0 + 10 * 2) = 2 over latents 5 and 0.
  StepProgram p(2);
  p.cache_shape = {.layers = {{3, 0}}, .num_sequences = 1, .max_len = 4, .type = KvCacheType::f32};
  const Slice row = given_rows(p, "row", {5, 1, 0, 0, 2, 0}, 3);
  const Slice q_latent = given_rows(p, "q_latent", {7, 1}, 1), q = given_rows(p, "q", {0, 0, 0, 88, 10, 0}, 3);
  p.step.logits = p.step.buffer("out", 1);
  p.step.kv_append({.k = row, .v = {}, .layer = 0});
  p.step.latent_attention({.q_latent = q_latent,
                           .q = q,
                           .layer = 0,
                           .num_heads = 1,
                           .latent_dim = 1,
                           .rope_dim = 2,
                           .scale = 0.1f,
                           .out = p.step.logits});
  expect_both(p, p.one_run(), {5, 5 / (1 + std::exp(0.5f))});
}

// ---- sinks and windows ----

TEST(Attention, SinksTakeTheirShareAndWindowsForget) {
  // Keys are 0, so all scores are; values are the tokens' numbers 1, 2, 4, 8.
  const auto program = [](int64_t window, bool sinks) {
    StepProgram p(4);
    p.cache_shape = {.layers = {{1, 1}}, .num_sequences = 1, .max_len = 8, .type = KvCacheType::f32};
    const Slice zero = given_rows(p, "zero", {0, 0, 0, 0}, 1), v = given_rows(p, "v", {1, 2, 4, 8}, 1);
    p.step.logits = p.step.buffer("out", 2);
    const Slice q = p.random_input("q", 2);
    p.step.kv_append({.k = zero, .v = v, .layer = 0});
    p.step.attention({.q = q,
                      .layer = 0,
                      .num_heads = 2,
                      .num_kv_heads = 1,
                      .head_dim = 1,
                      .scale = 1,
                      .out = p.step.logits,
                      .window = window,
                      .sinks = sinks ? p.vector({0.0f, std::log(3.0f)}) : WeightId{}});
    return p;
  };
  expect_both(program(0, false), program(0, false).one_run(), {1, 1, 1.5f, 1.5f, 7 / 3.0f, 7 / 3.0f, 3.75f, 3.75f});
  expect_both(program(2, false), program(2, false).one_run(), {1, 1, 1.5f, 1.5f, 3, 3, 6, 6});
  expect_both(program(1, false), program(1, false).one_run(), {1, 1, 2, 2, 4, 4, 8, 8});
  expect_both(program(2, true), program(2, true).one_run(),
              {1 / 2.0f, 1 / 4.0f, 3 / 3.0f, 3 / 5.0f, 6 / 3.0f, 6 / 5.0f, 12 / 3.0f, 12 / 5.0f});
}

TEST(Attention, SinksAndWindowsOfRandomHeads) {
  for (int64_t window : {0, 1, 5, 100}) {
    for (KvCacheType type : kv_cache_types_under_test()) {
      for (float sink : {-50.0f, 0.5f, 60.0f}) {
        StepProgram p(3);
        p.cache_shape = {.layers = {{48, 48, 0, 2}}, .num_sequences = 2, .max_len = 40, .type = type};
        const Slice q = p.random_input("q", 96), k = p.random_input("k", 48), v = p.random_input("v", 48);
        p.step.logits = p.step.buffer("out", 96);
        p.step.kv_append({.k = k, .v = v, .layer = 0});
        p.step.attention({.q = q,
                          .layer = 0,
                          .num_heads = 4,
                          .num_kv_heads = 2,
                          .head_dim = 24,
                          .scale = 0.2f,
                          .out = p.step.logits,
                          .window = window,
                          .sinks = p.vector({sink, -sink, 0.1f, 2.0f})});
        Runs runs;
        for (int32_t t = 0; t < 8; t++) runs.push_back({{2 * t, 2 * t, 0}, {2 * t + 1, 2 * t + 1, 0}, {31, t, 1}});
        expect_reference(p, runs, attention_tolerance(type));
      }
    }
  }
}

}  // namespace
}  // namespace nibble
