#include "ops/step.h"

#include <cmath>

#include <gtest/gtest.h>

#include "ops/backend.h"

namespace nibble {
namespace {

struct Case {
  Op op;
  const char* name;
  std::vector<Slice> reads, writes;
};

const Slice kA{0, 0, 8}, kB{1, 4, 4}, kC{2, 0, 8};

TEST(Step, EveryOpsNameAndSlices) {
  for (const Case& c : {
           Case{EmbedOp{.w = {0}, .out = kA}, "embed", {}, {kA}},
           Case{RmsNormOp{.x = kA, .weight = {0}, .out = kB, .eps = 1}, "rms_norm", {kA}, {kB}},
           Case{RmsNormOp{.x = kA, .weight = {0}, .out = kA, .eps = 1}, "rms_norm", {kA}, {kA}},
           Case{LinearOp{.x = kA, .w = {0}, .out = kB}, "linear", {kA}, {kB}},
           Case{LinearOp{.x = kA, .w = {0}, .out = kB, .accumulate = true}, "linear", {kA, kB}, {kB}},
           Case{RopeOp{.x = kA, .num_heads = 2, .head_dim = 4, .rotation = 0}, "rope", {kA}, {kA}},
           Case{KvAppendOp{.k = kA, .v = kB, .layer = 0}, "kv_append", {kA, kB}, {}},
           Case{AttentionOp{
                    .q = kA, .layer = 0, .num_heads = 2, .num_kv_heads = 1, .head_dim = 4, .scale = 1, .out = kC},
                "attention",
                {kA},
                {kC}},
           Case{KvAppendOp{.k = kA, .v = {}, .layer = 0}, "kv_append", {kA}, {}},
           Case{HeadLinearOp{.x = kA, .w = {0}, .num_heads = 2, .out = kC}, "head_linear", {kA}, {kC}},
           Case{LatentAttentionOp{.q_latent = kA, .q = kB, .layer = 0, .out = kC}, "latent_attention", {kA, kB}, {kC}},
           Case{RouteOp{.logits = kA, .experts = kB, .expert_weights = kC}, "route", {kA}, {kB, kC}},
           Case{MoeGateUpOp{.x = kA, .experts = kB, .out = kC}, "moe_gate_up", {kA, kB}, {kC}},
           Case{MoeDownOp{.x = kA, .experts = kB, .expert_weights = kB, .out = kC}, "moe_down", {kA, kB, kB, kC}, {kC}},
           Case{SwigluOp{.gate = kA, .up = kB, .out = kC}, "swiglu", {kA, kB}, {kC}},
           Case{SelectLogitsOp{.x = kA, .out = kB}, "select_logits", {kA}, {kB}},
       }) {
    EXPECT_EQ(op_name(c.op), c.name);
    EXPECT_EQ(op_slices(c.op).reads, c.reads) << c.name;
    EXPECT_EQ(op_slices(c.op).writes, c.writes) << c.name;
  }
}

TEST(Step, OfExpertsOnlyTheChosenAreRead) {
  // Matrix w has w + 1 experts of 100 bytes each.
  const auto size = [](WeightId w) { return MatrixSize{w.index + 1, 100 * (w.index + 1)}; };
  EXPECT_EQ(weight_bytes_read(EmbedOp{.w = {0}, .out = kA}, 3, size), 0);
  EXPECT_EQ(weight_bytes_read(LinearOp{.x = kA, .w = {0}, .out = kB}, 3, size), 100);
  EXPECT_EQ(weight_bytes_read(HeadLinearOp{.x = kA, .w = {4}, .num_heads = 5, .out = kB}, 1, size), 500);
  const MoeGateUpOp gate_up{.x = kA, .gate = {7}, .up = {7}, .experts = kB, .out = kC};  // 4 of 8
  EXPECT_EQ(weight_bytes_read(gate_up, 1, size), 800);
  EXPECT_EQ(weight_bytes_read(gate_up, 2, size), 1600);
  EXPECT_EQ(weight_bytes_read(gate_up, 50, size), 1600);
  EXPECT_EQ(weight_bytes_read(MoeDownOp{.x = kA, .down = {5}, .experts = kB, .out = kC}, 1, size), 400);
}

TEST(Step, TurnsOfLargeAngles) {
  const std::vector<int32_t> pos = {0, 100001};
  float cosine[4], sine[4];
  fill_turns({{1.0f, 0.25f}, 2.0f}, pos, cosine, sine);
  for (int i = 0; i < 4; i++) {
    const double angle = pos[static_cast<size_t>(i / 2)] * (i % 2 == 0 ? 1.0 : 0.25);
    EXPECT_EQ(cosine[i], static_cast<float>(2 * std::cos(angle)));
    EXPECT_EQ(sine[i], static_cast<float>(2 * std::sin(angle)));
  }
}

TEST(Step, SlicesOverlapWithinABuffer) {
  const Slice whole{3, 0, 10};
  EXPECT_EQ(whole.columns(4, 6), (Slice{3, 4, 6}));
  EXPECT_EQ(whole.columns(4, 6).columns(1, 2), (Slice{3, 5, 2}));
  EXPECT_TRUE(whole.overlaps(whole.columns(9, 1)));
  EXPECT_TRUE(whole.columns(2, 4).overlaps(whole.columns(5, 4)));
  EXPECT_FALSE(whole.columns(2, 3).overlaps(whole.columns(5, 4)));
  EXPECT_FALSE(whole.columns(5, 4).overlaps(whole.columns(2, 3)));
  EXPECT_FALSE(whole.overlaps({4, 0, 10}));
}

TEST(Step, RowsFollowFromTokensAndWantedLogits) {
  const Step last{.M = 7, .logits_for = LogitsFor::last_token}, all{.M = 7, .logits_for = LogitsFor::all_tokens};
  EXPECT_EQ(last.num_rows(Rows::tokens), 7);
  EXPECT_EQ(last.num_rows(Rows::logits), 1);
  EXPECT_EQ(all.num_rows(Rows::tokens), 7);
  EXPECT_EQ(all.num_rows(Rows::logits), 7);
}

TEST(Step, BuffersAndRotationsAreNumbered) {
  Step step{.M = 1, .logits_for = LogitsFor::last_token};
  EXPECT_EQ(step.buffer("x", 5), (Slice{0, 0, 5}));
  EXPECT_EQ(step.buffer("y", 7, Rows::logits), (Slice{1, 0, 7}));
  EXPECT_EQ(step.buffers[1].name, "y");
  EXPECT_EQ(step.buffers[1].rows, Rows::logits);
  EXPECT_EQ(step.rotation({{1.0f}}), 0);
  EXPECT_EQ(step.rotation({{0.5f}, 2.0f}), 1);
}

TEST(Step, ASliceIsDeadWhenAllItsColumnsAreWrittenBeforeTheyAreRead) {
  Step step{.M = 1, .logits_for = LogitsFor::all_tokens};
  const Slice x = step.buffer("x", 10), y = step.buffer("y", 10);
  step.logits = step.buffer("logits", 10);
  const auto copy = [&](const Slice& from, const Slice& to) { step.select_logits({.x = from, .out = to}); };
  copy(x.columns(0, 4), y.columns(0, 4));
  copy(y.columns(2, 3), x.columns(3, 3));
  copy(x.columns(3, 2), step.logits);
  EXPECT_FALSE(is_dead(step, 0, x.columns(3, 1)));  // read at once
  EXPECT_TRUE(is_dead(step, 0, x.columns(4, 6)));   // columns 4 and 5 are written before they are read, the rest is not
  EXPECT_TRUE(is_dead(step, 1, x.columns(3, 3)));
  EXPECT_FALSE(is_dead(step, 2, x.columns(2, 2)));
  EXPECT_TRUE(is_dead(step, 3, x));
  EXPECT_TRUE(is_dead(step, 0, y.columns(0, 2)));
  EXPECT_FALSE(is_dead(step, 0, y));  // column 4 is read and not written
  EXPECT_FALSE(is_dead(step, 3, step.logits.columns(9, 1)));
}

TEST(KvCacheShape, BytesPerToken) {
  KvCacheShape shape{.layers = {{4, 6}, {10, 2}}, .num_sequences = 3, .max_len = 5, .type = KvCacheType::f16};
  EXPECT_EQ(shape.bytes_per_token(), 2 * 22);
  shape.type = KvCacheType::f32;
  EXPECT_EQ(shape.bytes_per_token(), 4 * 22);
  shape.layers[1].window = 3;
  EXPECT_EQ(shape.bytes_read(2), 4 * 2 * 22);
  EXPECT_EQ(shape.bytes_read(10), 4 * (10 * 10 + 3 * 12));
}

TEST(KvCacheShape, GroupsOfQ8BeginWithEachHead) {
  EXPECT_EQ(kv_cache_row_bytes(KvCacheType::q8_0, 0), 0);
  EXPECT_EQ(kv_cache_row_bytes(KvCacheType::q8_0, 1), 34);
  EXPECT_EQ(kv_cache_row_bytes(KvCacheType::q8_0, 128), 4 * 34);
  // 3 heads of 48 columns take two groups each; a latent of 512 + 64 takes 18 and has no values.
  KvCacheShape shape{
      .layers = {{3 * 48, 3 * 32, 7, 3}, {576, 0}}, .max_len = 100, .type = KvCacheType::q8_0, .spare = 0};
  EXPECT_EQ(shape.bytes_per_token(), 3 * (2 + 1) * 34 + 18 * 34);
  EXPECT_EQ(shape.bytes(), 7 * 3 * 3 * 34 + 100 * 18 * 34);
  EXPECT_EQ(shape.bytes_read(10), 7 * 3 * 3 * 34 + 10 * 18 * 34);
}

TEST(KvCacheType, Names) {
  std::vector<std::string_view> names;
  for (KvCacheType type : kKvCacheTypes) names.push_back(kv_cache_type_name(type));
  EXPECT_EQ(names, (std::vector<std::string_view>{"f32", "f16", "q8_0"}));
}

}  // namespace
}  // namespace nibble
