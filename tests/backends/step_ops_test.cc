// Steps of single ops on the backend under test against the reference: odd widths, slices, caches of both types, several sequences.
#include <cmath>

#include <gtest/gtest.h>

#include "backends/step_comparison.h"
#include "weights/convert.h"

namespace nibble {
namespace {

TEST(StepOps, EmbedGivesRowsOfAnyFormatExactly) {
  for (FormatId format : format_ids(KernelFormats{})) {
    StepProgram p(3);
    p.step.logits = p.step.buffer("x", 128);
    p.step.embed({.w = p.matrix(format, 21, 128), .out = p.step.logits});
    const Runs runs = {{{20, 0}, {0, 1}, {17, 2}}, {{5, 3}, {5, 4}, {19, 5}}};
    EXPECT_EQ(backend_values(p, runs), p.run(*make_reference_backend(), runs)) << format_name(format);
  }
}

// The rows of a converted weight, and what it multiplies, are those of the matrix as packed: within Q8_0's error.
TEST(StepOps, TakesWeightsInFormatsWithoutAKernel) {
  for (FormatId format : {FormatId::q5_1, FormatId::q4_k, FormatId::q6_k, FormatId::iq4_nl}) {
    StepProgram p(3);
    const Slice x = p.step.buffer("x", 256);
    p.step.logits = p.step.buffer("out", 37);
    p.step.embed({.w = p.matrix(format, 21, 256), .out = x});
    p.step.linear({.x = x, .w = p.matrix(format, 37, 256), .bias = p.vector(37), .out = p.step.logits});
    expect_reference(p, {{{20, 0}, {0, 1}, {17, 2}}, {{5, 3}, {5, 4}, {19, 5}}}, 1e-2f);
  }
}

TEST(StepOps, RmsNormOfRowsAndOfHeads) {
  for (int64_t M : {1, 11}) {
    for (const auto& [num_heads, width] : {std::pair{1, 77}, {5, 13}, {3, 16}, {1, 1}, {4, 33}}) {
      StepProgram p(M);
      const Slice x = p.random_input("x", num_heads * width + 5).columns(2, num_heads * width);
      p.step.logits = p.step.buffer("out", x.width);
      p.step.rms_norm({.x = x, .weight = p.vector(width), .out = p.step.logits, .eps = 1e-3f, .num_heads = num_heads});
      expect_reference(p, p.one_run(), 1e-6f);
      p.step.rms_norm(
          {.x = p.step.logits, .weight = p.vector(width), .out = p.step.logits, .eps = 10, .num_heads = num_heads});
      expect_reference(p, p.one_run(), 1e-6f);
    }
  }
}

TEST(StepOps, LinearsWithBiasesSumsAndSlices) {
  for (int64_t M : {1, 2, 8, 9, 23}) {
    for (FormatId format : {FormatId::f32, FormatId::bf16, FormatId::q8_0, FormatId::mxfp4, FormatId::nvfp4}) {
      for (const auto& [N, K] : {std::pair{1, 64}, {37, 96}, {131, 160}}) {
        SCOPED_TRACE(fmt::format("{} M {} N {} K {}", format_name(format), M, N, K));
        StepProgram p(M);
        const Slice x = p.random_input("x", K + 9).columns(4, K);
        const Slice wide = p.random_input("wide", N + 7);
        const Slice out = wide.columns(3, N);
        p.step.linear({.x = x, .w = p.matrix(format, N, K), .bias = p.vector(N), .out = out});
        p.step.linear({.x = x, .w = p.matrix(format, N, K), .out = out, .accumulate = true});
        p.step.linear({.x = x, .w = p.matrix(format, N, K), .bias = p.vector(N), .out = out, .accumulate = true});
        p.step.logits = wide;  // with the columns beside it, which stay as they were
        expect_reference(p, p.one_run(), 2e-4f);
      }
    }
  }
}

TEST(StepOps, RopeTurnsTheFirstColumnsOfEachHead) {
  for (int64_t M : {1, 9}) {
    StepProgram p(M);
    const Slice x = p.random_input("x", 3 * 22 + 1).columns(1, 3 * 22);
    Rotation rotation{.inv_freq = {1.0f, 0.3f, 0.1f, 0.03f, 0.001f, 1e-6f, 0.7f}, .scale = 1.25f};  // 14 of 22
    p.step.rope({.x = x, .num_heads = 3, .head_dim = 22, .rotation = p.step.rotation(rotation)});
    p.step.logits = {x.buffer, 0, 67};
    Runs runs = p.one_run();
    for (Place& place : runs[0]) place.pos = place.pos * 100000 + 7;  // angles far beyond 2π
    expect_reference(p, runs, 1e-6f);
  }
}

TEST(StepOps, TwoRotationsInOneStep) {
  StepProgram p(3);
  const Slice x = p.random_input("x", 16);
  const int fast = p.step.rotation({{1.0f, 0.5f, 0.2f, 0.1f}}), slow = p.step.rotation({{0.1f, 0.05f}, 2.0f});
  p.step.rope({.x = x.columns(0, 8), .num_heads = 1, .head_dim = 8, .rotation = fast});
  p.step.rope({.x = x.columns(8, 8), .num_heads = 2, .head_dim = 4, .rotation = slow});
  p.step.logits = x;
  expect_reference(p, p.one_run(), 1e-6f);
}

TEST(StepOps, SelectLogitsTakesTheLastTokenOrAll) {
  for (LogitsFor wanted : {LogitsFor::last_token, LogitsFor::all_tokens}) {
    StepProgram p(5, wanted);
    const Slice x = p.random_input("x", 7);
    p.step.logits = p.step.buffer("out", 7, Rows::logits);
    p.step.select_logits({.x = x, .out = p.step.logits});
    const auto values = backend_values(p, p.one_run());
    EXPECT_EQ(values.size(), wanted == LogitsFor::all_tokens ? 35u : 7u);
    EXPECT_EQ(values, p.run(*make_reference_backend(), p.one_run()));
  }
}

// ---- attention ----

struct AttentionShape {
  int64_t num_heads, num_kv_heads, head_dim;
};

// q, k and v lie in one buffer, as a fused matrix would leave them.
StepProgram attention_program(const AttentionShape& s, int64_t M, KvCacheType type, int64_t num_sequences,
                              float scale = 0.2f) {
  StepProgram p(M);
  const int64_t q_width = s.num_heads * s.head_dim, kv_width = s.num_kv_heads * s.head_dim;
  const Slice qkv = p.random_input("qkv", q_width + 2 * kv_width + 1);
  p.cache_shape = {
      .layers = {{kv_width, kv_width, 0, s.num_kv_heads}}, .num_sequences = num_sequences, .max_len = 40, .type = type};
  p.step.logits = p.step.buffer("attended", q_width);
  p.step.kv_append({.k = qkv.columns(q_width, kv_width), .v = qkv.columns(q_width + kv_width, kv_width), .layer = 0});
  p.step.attention({.q = qkv.columns(0, q_width),
                    .layer = 0,
                    .num_heads = s.num_heads,
                    .num_kv_heads = s.num_kv_heads,
                    .head_dim = s.head_dim,
                    .scale = scale,
                    .out = p.step.logits});
  return p;
}

const AttentionShape kShapes[] = {{1, 1, 1}, {1, 1, 50}, {3, 1, 22}, {6, 2, 80}, {6, 6, 17}, {8, 4, 64}, {5, 5, 130}};

TEST(StepOps, AttentionOfEveryShapeAndCacheType) {
  for (const AttentionShape& shape : kShapes) {
    for (KvCacheType type : kv_cache_types_under_test()) {
      for (int64_t M : {1, 3, 10}) {
        SCOPED_TRACE(fmt::format("{}/{} heads of {}, M {}, {}", shape.num_heads, shape.num_kv_heads, shape.head_dim, M,
                                 kv_cache_type_name(type)));
        const StepProgram p = attention_program(shape, M, type, 1);
        Runs runs;
        for (int32_t run = 0; run < 3; run++) {
          std::vector<Place> places;
          for (auto m = static_cast<int32_t>(run * M); m < (run + 1) * M; m++) places.push_back({m % 32, m, 0});
          runs.push_back(places);
        }
        expect_reference(p, runs, attention_tolerance(type));
      }
    }
  }
}

void expect_no_dependence_on_neighbours(const AttentionShape& shape, KvCacheType type) {
  // Three sequences, at different depths, in three runs of 6 tokens; one has several tokens in a run.
  const Runs together = {{{1, 0, 0}, {2, 0, 1}, {3, 1, 1}, {4, 0, 2}, {5, 1, 0}, {6, 2, 1}},
                         {{7, 3, 1}, {8, 1, 2}, {9, 4, 1}, {10, 5, 1}, {11, 2, 0}, {12, 2, 2}},
                         {{13, 3, 2}, {14, 4, 2}, {15, 3, 0}, {16, 6, 1}, {17, 4, 0}, {18, 5, 0}}};
  const StepProgram p = attention_program(shape, 6, type, 3);
  const std::vector<float> values = backend_values(p, together);
  expect_near(values, p.run(*make_reference_backend(), together), attention_tolerance(type));
  const StepProgram alone = attention_program(shape, 1, type, 1);
  const auto width = static_cast<size_t>(alone.step.logits.width);
  for (int32_t sequence = 0; sequence < 3; sequence++) {
    Runs steps;
    std::vector<float> expected;
    for (size_t i = 0; i < 18; i++) {
      const Place& place = together[i / 6][i % 6];
      if (place.sequence != sequence) continue;
      steps.push_back({{place.token, place.pos, 0}});
      expected.insert(expected.end(), values.begin() + static_cast<std::ptrdiff_t>(i * width),
                      values.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
    }
    EXPECT_EQ(backend_values(alone, steps), expected) << "sequence " << sequence;
  }
}

TEST(StepOps, ASequenceDoesNotDependOnItsNeighbours) {
  for (const AttentionShape& shape : kShapes) {
    for (KvCacheType type : kv_cache_types_under_test()) {
      SCOPED_TRACE(fmt::format("{}/{} heads of {}, {}", shape.num_heads, shape.num_kv_heads, shape.head_dim,
                               kv_cache_type_name(type)));
      expect_no_dependence_on_neighbours(shape, type);
    }
  }
}

TEST(StepOps, AttentionOfScoresFarApart) {
  // Scores of several thousand either way: nothing overflows, and the largest takes all.
  for (float scale : {1e-6f, 30.0f, 1e4f}) {
    const StepProgram p = attention_program({3, 1, 22}, 12, KvCacheType::f32, 1, scale);
    expect_reference(p, p.one_run(), 2e-4f);
  }
}

void expect_nan_to_stay(KvCacheType type) {
  StepProgram p(4);
  std::vector<float> rows = random_activations(4 * 30, 5);
  rows[30 * 1 + 12] = kNan;  // a key of token 1, which is position 1 of sequence 0
  const Slice qkv = p.step.buffer("qkv", 30);
  p.step.embed({.w = p.rows(rows, 30), .out = qkv});
  p.cache_shape = {.layers = {{10, 10}}, .num_sequences = 2, .max_len = 8, .type = type};
  p.step.logits = p.step.buffer("out", 10);
  p.step.kv_append({.k = qkv.columns(10, 10), .v = qkv.columns(20, 10), .layer = 0});
  p.step.attention({.q = qkv.columns(0, 10),
                    .layer = 0,
                    .num_heads = 1,
                    .num_kv_heads = 1,
                    .head_dim = 10,
                    .scale = 1,
                    .out = p.step.logits});
  const auto values = backend_values(p, {{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {3, 1, 1}}});
  for (size_t m = 0; m < 4; m++)
    for (size_t i = 0; i < 10; i++) EXPECT_EQ(std::isnan(values[m * 10 + i]), m == 1) << m << ", " << i;
}

TEST(StepOps, ANanStaysWithItsSequence) {
  for (KvCacheType type : kv_cache_types_under_test()) {
    SCOPED_TRACE(kv_cache_type_name(type));
    expect_nan_to_stay(type);
  }
}

// ---- SwiGLU, which shows the exponential ----

std::vector<float> swiglu(const std::vector<float>& gate, Backend& backend) {
  StepProgram p(1);
  const auto size = static_cast<int64_t>(gate.size());
  const Slice g = p.step.buffer("gate", size), up = p.step.buffer("up", size);
  p.step.embed({.w = p.rows(gate, size), .out = g});
  p.step.embed({.w = p.rows(std::vector<float>(gate.size(), 1.0f), size), .out = up});
  p.step.logits = p.step.buffer("out", size);
  p.step.swiglu({.gate = g, .up = up, .out = p.step.logits});
  return p.run(backend, p.one_run());
}

TEST(StepOps, SwigluIsGoodToTheLastBitsEverywhere) {
  std::vector<float> gate;
  for (int i = -12800; i <= 12800; i++) gate.push_back(static_cast<float>(i) / 128);  // -100 … 100
  for (float x : {1e-30f, 1e-10f, 1e10f, 1e30f, 3e38f}) gate.insert(gate.end(), {x, -x});
  gate.insert(gate.end(), {0.0f, -0.0f, kInfinity, -86.99999f, -87.0f, -87.00001f, -88.72f, -88.73f, -103.9f, -104.0f});
  const auto values = swiglu(gate, *backends_under_test()[0]), expected = swiglu(gate, *make_reference_backend());
  for (size_t i = 0; i < gate.size(); i++) {
    if (std::isinf(expected[i])) {
      EXPECT_EQ(values[i], expected[i]) << gate[i];
    } else {
      EXPECT_NEAR(values[i], expected[i], 5e-7f * std::fabs(expected[i]) + 1e-35f) << gate[i];
    }
  }
}

TEST(StepOps, SwigluKeepsNans) {
  std::vector<float> gate(21, 1.0f);
  gate[3] = gate[20] = kNan;
  const auto values = swiglu(gate, *backends_under_test()[0]);
  for (size_t i = 0; i < values.size(); i++) EXPECT_EQ(std::isnan(values[i]), i == 3 || i == 20) << i;
}

TEST(StepOps, SwigluOfManyTokensAndOddWidths) {
  for (int64_t M : {1, 10}) {
    for (int64_t width : {1, 15, 16, 17, 75}) {
      StepProgram p(M);
      const Slice x = p.random_input("x", 2 * width + 3);
      p.step.logits = p.step.buffer("out", width);
      p.step.swiglu({.gate = x.columns(1, width), .up = x.columns(width + 2, width), .out = p.step.logits});
      expect_reference(p, p.one_run(), 1e-6f);
    }
  }
}

}  // namespace
}  // namespace nibble
