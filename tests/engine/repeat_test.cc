// Contexts of copies, which measurements at a depth decode from: each backend's cache against the reference's.
#include "checkpoint/test_files.h"
#include "engine/batch.h"
#include "engine/session.h"
#include "goldens.h"

namespace nibble {
namespace {

constexpr int64_t kPeriod = 4, kLength = 23;
const std::vector<int32_t> kPrompt = {5, 17, 3, 40};

EngineOptions options(const std::string& backend, KvCacheType type) {
  return {.backend = {.name = backend, .num_threads = 1},
          .kv_cache_type = type,
          .max_len = 40,
          .num_sequences = 2,
          .prefill_block = kPeriod,
          .kv_spare = 4};
}

std::vector<float> copied(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

std::vector<float> after_repeat(Engine& engine) {
  Session session(engine);
  session.prefill(kPrompt);
  session.repeat(kLength);
  EXPECT_EQ(session.length(), kLength);
  EXPECT_EQ(session.tokens()[21], kPrompt[1]);
  return copied(session.decode(8));
}

// A layer with a window of 5 keeps 9 rows, over which 23 positions go twice.
TEST(Repeat, EveryBackendFillsItsCacheAsTheReferenceDoes) {
  for (const char* name : {"qwen3-gguf-mxfp4", "mixtral-one-expert", "deepseek_v3-groups", "gpt_oss-gguf-mxfp4"})
    for (const KvCacheType type : {KvCacheType::f16, KvCacheType::q8_0}) {
      const auto model = model_in(kModels / name);
      Engine reference(model, options("reference", type));
      const std::vector<float> expected = after_repeat(reference);
      for (const std::string_view backend : backend_names()) {
        if (backend == "metal" && type == KvCacheType::q8_0) continue;  // it has none
        SCOPED_TRACE(fmt::format("{} {} {}", name, kv_cache_type_name(type), backend));
        Engine engine(model, options(std::string(backend), type));
        const std::vector<float> logits = after_repeat(engine);
        EXPECT_LT(mean_kl(expected, logits, logits.size()), 1e-4);
      }
    }
}

TEST(Repeat, ASequenceOfABatchLeavesItsNeighbourAlone) {
  Engine engine(model_in(kModels / "mixtral-one-expert"), options("cpu", KvCacheType::f16));
  const std::vector<float> expected = after_repeat(engine);
  Batch batch(engine);
  batch.prefill(std::vector<int32_t>{9, 2, 61}, 0);
  const std::vector<float> neighbour = copied(batch.extend(std::vector<int32_t>{7}, std::vector<int32_t>{0}));
  batch.truncate(3);
  batch.prefill(kPrompt, 1);
  batch.repeat(1, kLength);
  EXPECT_EQ(batch.length(1), kLength);
  EXPECT_EQ(copied(batch.extend(std::vector<int32_t>{7}, std::vector<int32_t>{0})), neighbour);
  EXPECT_EQ(copied(batch.extend(std::vector<int32_t>{8}, std::vector<int32_t>{1})), expected);
}

TEST(Repeat, ErrorsNameBothValues) {
  Engine engine(model_in(kModels / "qwen3-gguf-mxfp4"), options("cpu", KvCacheType::f16));
  Session session(engine);
  expect_parts(error_of([&] { session.repeat(9); }), {"0 positions to repeat", "1 to 4"});
  session.prefill(kPrompt);
  expect_parts(error_of([&] { session.repeat(41); }), {"41 positions", "context of 40"});
  EXPECT_EQ(session.length(), kPeriod);
  session.repeat(2);  // fewer than there are: nothing to do
  EXPECT_EQ(session.length(), kPeriod);
  Batch batch(engine);
  expect_parts(error_of([&] { batch.repeat(1, 9); }), {"sequence 1", "0 positions to repeat", "1 to 4"});
  batch.prefill(kPrompt, 1);
  expect_parts(error_of([&] { batch.repeat(1, 41); }), {"sequence 1", "41 positions", "context of 40"});
}

}  // namespace
}  // namespace nibble
