// Which ops become one dispatch on Metal, what must not, and that neither changes a value.
#include "backends/metal/metal_fuse.h"

#include <gtest/gtest.h>

#include "backends/step_comparison.h"
#include "base/error.h"
#include "weights/convert.h"

namespace nibble {
namespace {

using Names = std::vector<std::string>;

// One layer with experts, as the models record it: hidden 40, 3 heads of 12 over 1 key head, 6 experts and a shared one.
struct Layer {
  FormatId q = FormatId::bf16, k = FormatId::bf16, gate = FormatId::f16, up = FormatId::f16;
  bool head_norms = true, head_rope = true;
};

StepProgram layer_program(int64_t M, const Layer& l) {
  StepProgram p(M, LogitsFor::last_token);
  Step& s = p.step;
  p.cache_shape = {.layers = {{12, 12}}, .num_sequences = 1, .max_len = 16, .type = KvCacheType::f32};
  const Slice x = p.random_input("x", 40), normed = s.buffer("normed", 40);
  const Slice q = s.buffer("q", 36), k = s.buffer("k", 12), v = s.buffer("v", 12), attended = s.buffer("attended", 36);
  s.rms_norm({.x = x, .weight = p.vector(40), .out = normed, .eps = 1e-5f});
  s.linear({.x = normed, .w = p.matrix(l.q, 36, 40), .out = q});
  s.linear({.x = normed, .w = p.matrix(l.k, 12, 40), .out = k});
  s.linear({.x = normed, .w = p.matrix(l.k, 12, 40), .out = v});
  if (l.head_norms) {
    s.rms_norm({.x = q, .weight = p.vector(12), .out = q, .eps = 1e-5f, .num_heads = 3});
    s.rms_norm({.x = k, .weight = p.vector(12), .out = k, .eps = 1e-6f, .num_heads = 1});
  }
  const int rotation = s.rotation({{1.0f, 0.3f, 0.1f, 0.03f}});  // 8 of 12
  if (l.head_rope) {
    s.rope({.x = q, .num_heads = 3, .head_dim = 12, .rotation = rotation});
    s.rope({.x = k, .num_heads = 1, .head_dim = 12, .rotation = rotation});
  }
  s.kv_append({.k = k, .v = v, .layer = 0});
  s.attention({.q = q, .layer = 0, .num_heads = 3, .num_kv_heads = 1, .head_dim = 12, .scale = 0.3f, .out = attended});
  s.linear({.x = attended, .w = p.matrix(FormatId::bf16, 40, 36), .out = x, .accumulate = true});

  const Slice router_logits = s.buffer("router_logits", 6), experts = s.buffer("experts", 2);
  const Slice weights = s.buffer("weights", 2), hidden = s.buffer("hidden", 2 * 24);
  const auto matrices = [&](FormatId format, int64_t N, int64_t K, uint32_t seed) {
    return p.matrix(random_weight(format, 6, N, K, 1, seed));
  };
  s.rms_norm({.x = x, .weight = p.vector(40), .out = normed, .eps = 1e-5f});
  s.linear({.x = normed, .w = p.matrix(FormatId::bf16, 6, 40), .out = router_logits});
  s.route({.logits = router_logits, .scores = RouterScores::softmax, .experts = experts, .expert_weights = weights});
  s.moe_gate_up({.x = normed,
                 .gate = matrices(l.gate, 24, 40, 7),
                 .up = matrices(l.up, 24, 40, 8),
                 .gate_bias = p.vector(6 * 24),
                 .up_bias = p.vector(6 * 24),
                 .experts = experts,
                 .out = hidden});
  s.moe_down({.x = hidden,
              .down = matrices(FormatId::bf16, 40, 24, 9),
              .experts = experts,
              .expert_weights = weights,
              .out = x});
  const Slice gate = s.buffer("gate", 24), up = s.buffer("up", 24), shared = s.buffer("shared", 24);
  s.linear({.x = normed, .w = p.matrix(l.gate, 24, 40), .bias = p.vector(24), .out = gate});
  s.linear({.x = normed, .w = p.matrix(l.up, 24, 40), .out = up});
  s.swiglu({.gate = gate, .up = up, .out = shared});
  s.linear({.x = shared, .w = p.matrix(FormatId::bf16, 40, 24), .out = x, .accumulate = true});

  const Slice last = s.buffer("last", 40, Rows::logits), last_normed = s.buffer("last_normed", 40, Rows::logits);
  s.logits = s.buffer("logits", 21, Rows::logits);
  s.select_logits({.x = x, .out = last});
  s.rms_norm({.x = last, .weight = p.vector(40), .out = last_normed, .eps = 1e-5f});
  s.linear({.x = last_normed, .w = p.matrix(FormatId::bf16, 21, 40), .out = s.logits});
  return p;
}

// The dispatches of the layer, without the embedding's.
Names names(const StepProgram& p) {
  Names all;
  const auto format = [&](WeightId id) { return p.packed_format(id); };
  for (const auto& dispatch : metal_fusion::fuse(p.step, format)) all.push_back(metal_fusion::dispatch_name(dispatch));
  all.erase(all.begin());
  return all;
}

void expect_values(const Layer& layer) {
  for (int64_t M : {1, 5}) expect_reference(layer_program(M, layer), layer_program(M, layer).one_run(), 2e-5f);
}

TEST(MetalFuse, ALayerWithExperts) {
  EXPECT_EQ(names(layer_program(1, {})), (Names{"rms_norm + 3 linears", "rms_norm + rope + kv_append", "attention",
                                                "linear", "rms_norm + linear", "route", "moe_gate_up", "moe_down",
                                                "2 linears + swiglu", "linear", "select_logits", "rms_norm + linear"}));
  expect_values({});
}

TEST(MetalFuse, MatricesOfDifferentFormatsTakeADispatchEach) {
  const Layer layer{.q = FormatId::f32, .gate = FormatId::f32, .head_norms = false};
  EXPECT_EQ(names(layer_program(1, layer)),
            (Names{"rms_norm + linear", "rms_norm + 2 linears", "rope + kv_append", "attention", "linear",
                   "rms_norm + linear", "route", "moe_gate", "moe_up", "moe_down", "linear", "linear", "swiglu",
                   "linear", "select_logits", "rms_norm + linear"}));
  expect_values(layer);
}

TEST(MetalFuse, HeadsWithoutRotation) {
  const Layer layer{.head_rope = false};
  EXPECT_EQ(names(layer_program(1, layer))[1], "rms_norm + kv_append");
  expect_values(layer);
  EXPECT_EQ(names(layer_program(1, {.head_norms = false, .head_rope = false}))[1], "kv_append");
  expect_values({.head_norms = false, .head_rope = false});
}

// What comes before latent attention, as the models record it; `separate`: the rotations have to be apart.
StepProgram latent_heads_program(int64_t M, bool interleaved, bool separate, KvCacheType type) {
  StepProgram p(M);
  Step& s = p.step;
  p.cache_shape = {.layers = {{27, 0}}, .num_sequences = 1, .max_len = 16, .type = type};
  const Slice latent = p.random_input("latent", 27), q = p.random_input("q", 3 * 15);
  const Slice q_latent = p.random_input("q_latent", 3 * 21), norm_x = latent.columns(0, 21);
  const int rotation = s.rotation({{1.0f, 0.3f, 0.1f}});
  s.rms_norm({.x = norm_x, .weight = p.vector(21), .out = norm_x, .eps = 1e-6f});
  s.rope({.x = latent.columns(21, 6), .num_heads = 1, .head_dim = 6, .rotation = rotation, .interleaved = interleaved});
  s.rope({.x = q,
          .num_heads = 3,
          .head_dim = 15,
          .rotation = separate ? s.rotation({{0.5f, 0.2f, 0.7f}}) : rotation,
          .first = 9,
          .interleaved = interleaved});
  s.kv_append({.k = latent, .v = {}, .layer = 0});
  s.logits = s.buffer("out", 3 * 21);
  s.latent_attention({.q_latent = q_latent,
                      .q = q,
                      .layer = 0,
                      .num_heads = 3,
                      .latent_dim = 21,
                      .rope_dim = 6,
                      .scale = 0.2f,
                      .out = s.logits});
  return p;
}

TEST(MetalFuse, LatentsAndTheirQueries) {
  for (bool interleaved : {false, true}) {
    const auto program = [&](int64_t M, bool separate, KvCacheType type) {
      return latent_heads_program(M, interleaved, separate, type);
    };
    EXPECT_EQ(names(program(1, false, KvCacheType::f16)),
              (Names{"embed", "embed", "rms_norm + rope + kv_append", "latent_attention"}));
    EXPECT_EQ(names(program(1, true, KvCacheType::f16)),
              (Names{"embed", "embed", "rms_norm", "rope", "rope", "kv_append", "latent_attention"}));
    for (int64_t M : {1, 7})
      for (bool separate : {false, true})
        for (KvCacheType type : {KvCacheType::f16, KvCacheType::f32}) {
          const float tolerance = type == KvCacheType::f16 ? 0x1p-11f : 2e-5f;  // a half may be rounded the other way
          expect_reference(program(M, separate, type), program(M, separate, type).one_run(), tolerance);
        }
  }
}

// A dense block; `reads_normed`: somebody else reads the norm's result.
StepProgram dense_program(int64_t M, bool reads_normed, bool in_place) {
  StepProgram p(M);
  Step& s = p.step;
  const Slice x = p.random_input("x", 44), normed = in_place ? x : s.buffer("normed", 44);
  const Slice gate = s.buffer("gate", 30), up = s.buffer("up", 30), hidden = s.buffer("hidden", 30);
  s.logits = p.random_input("out", 44);
  s.rms_norm({.x = x, .weight = p.vector(44), .out = normed, .eps = 1e-5f});
  s.linear({.x = normed, .w = p.matrix(FormatId::bf16, 30, 44), .bias = p.vector(30), .out = gate});
  s.linear({.x = normed, .w = p.matrix(FormatId::bf16, 30, 44), .bias = p.vector(30), .out = up});
  s.swiglu({.gate = gate, .up = up, .out = hidden});
  s.linear({.x = hidden, .w = p.matrix(FormatId::bf16, 44, 30), .out = s.logits, .accumulate = true});
  if (reads_normed) s.linear({.x = normed, .w = p.matrix(FormatId::bf16, 44, 44), .out = s.logits, .accumulate = true});
  return p;
}

TEST(MetalFuse, ADenseBlock) {
  EXPECT_EQ(names(dense_program(1, false, false)), (Names{"embed", "rms_norm + 2 linears + swiglu", "linear"}));
  EXPECT_EQ(names(dense_program(1, true, false)),
            (Names{"embed", "rms_norm", "2 linears + swiglu", "linear", "linear"}));
  EXPECT_EQ(names(dense_program(1, true, true)),
            (Names{"embed", "rms_norm", "2 linears + swiglu", "linear", "linear"}));
  for (int64_t M : {1, 6})
    for (bool reads_normed : {false, true})
      for (bool in_place : {false, true}) {
        const StepProgram p = dense_program(M, reads_normed, in_place);
        expect_reference(p, p.one_run(), 2e-5f);
      }
}

TEST(MetalFuse, ANormInPlaceThatSomebodyElseReadsIsNotFused) {
  StepProgram p(3);
  const Slice x = p.random_input("x", 33), out = p.step.buffer("out", 20);
  p.step.rms_norm({.x = x, .weight = p.vector(33), .out = x, .eps = 1e-5f});
  p.step.linear({.x = x, .w = p.matrix(FormatId::bf16, 20, 33), .out = out});
  p.step.logits = x;
  EXPECT_EQ(names(p), (Names{"rms_norm", "linear"}));
  expect_reference(p, p.one_run(), 1e-6f);
}

TEST(MetalFuse, MoreMatricesThanADispatchHas) {
  StepProgram p(2);
  const Slice x = p.random_input("x", 40), normed = p.step.buffer("normed", 40);
  p.step.logits = p.step.buffer("out", 5 * 9 + 40);
  p.step.rms_norm({.x = x, .weight = p.vector(40), .out = normed, .eps = 1e-5f});
  for (int64_t i = 0; i < 5; i++)
    p.step.linear({.x = normed, .w = p.matrix(FormatId::bf16, 9, 40), .out = p.step.logits.columns(9 * i, 9)});
  p.step.linear({.x = normed, .w = p.matrix(FormatId::bf16, 40, 40), .out = p.step.logits.columns(45, 40)});
  EXPECT_EQ(names(p), (Names{"rms_norm + 3 linears", "rms_norm + 3 linears"}));
  expect_reference(p, p.one_run(), 2e-5f);
}

// ---- matrices ----

TEST(MetalMatrix, EveryFormatWithAKernelMultiplies) {
  for (FormatId format : format_ids(KernelFormats{})) {
    for (const auto& [M, N, K] : {std::array<int64_t, 3>{1, 5, 256}, {6, 13, 128}}) {
      SCOPED_TRACE(fmt::format("{} M {} N {} K {}", format_name(format), M, N, K));
      StepProgram p(M);
      const Slice x = p.random_input("x", K);
      p.step.logits = p.step.buffer("out", N);
      p.step.linear({.x = x, .w = p.matrix(format, N, K), .out = p.step.logits});
      expect_reference(p, p.one_run(), 5e-6f);
    }
  }
}

// Rows of all codes with each scale: what the decoders of the shaders make of them.
template <class Format>
void expect_all_scales(int first_scale, int last_scale) {
  const int64_t N = last_scale - first_scale + 1, K = 32;
  auto bytes = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(N * 16));
  for (size_t i = 0; i < bytes->size(); i++) (*bytes)[i] = static_cast<uint8_t>(i % 8 * 34 + 0x10);
  auto scales = std::make_shared<std::vector<uint8_t>>();
  for (int64_t n = 0; n < N; n++)
    scales->insert(scales->end(), static_cast<size_t>(K / Format::group_size), static_cast<uint8_t>(first_scale + n));
  StepProgram p(N);
  p.step.logits = p.step.buffer("x", K);
  p.step.embed(
      {.w = p.matrix({.format = Format::id,
                      .E = 1,
                      .N = N,
                      .K = K,
                      .codes = *bytes,
                      .scales = *scales,
                      .parts = {{0, {1.0f}}},
                      .storage = std::make_shared<std::pair<decltype(bytes), decltype(scales)>>(bytes, scales)}),
       .out = p.step.logits});
  EXPECT_EQ(backend_values(p, p.one_run()), p.run(*make_reference_backend(), p.one_run()));
}

TEST(MetalMatrix, EveryCodeWithEveryScaleIsExact) {
  expect_all_scales<Mxfp4>(0, 254);
  expect_all_scales<Nvfp4>(0, 0x7E);
}

// ---- what there is no kernel for ----

void expect_refused(const StepProgram& p, const std::string& says) {
  try {
    p.run(*backends_under_test()[0], p.one_run());
    FAIL() << "not refused";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
  }
}

TEST(MetalLimits, AreErrors) {
  StepProgram experts(1);
  experts.step.logits = experts.step.buffer("chosen", 2);
  experts.step.route({.logits = experts.random_input("logits", 1025),
                      .scores = RouterScores::softmax,
                      .experts = experts.step.logits.columns(0, 1),
                      .expert_weights = experts.step.logits.columns(1, 1)});
  expect_refused(experts, "1025 experts; it has kernels for up to 1024, --backend cpu for any number");

  StepProgram heads(1);
  const Slice q = heads.random_input("q", 1025);
  heads.cache_shape.layers = {{1025, 1025}};
  heads.step.logits = heads.step.buffer("out", 1025);
  heads.step.attention(
      {.q = q, .layer = 0, .num_heads = 1, .num_kv_heads = 1, .head_dim = 1025, .scale = 1, .out = heads.step.logits});
  expect_refused(heads, "heads of 1025 values; it has kernels for up to 1024, --backend cpu for any");

  StepProgram tiles(1);
  tiles.step.logits = tiles.random_input("x", 4);
  tiles.step.linear_route = LinearRoute::always_tiles;
  expect_refused(tiles, "no route with tiles");
}

}  // namespace
}  // namespace nibble
