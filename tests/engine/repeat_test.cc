// Contexts of copies, which measurements at a depth decode from: each backend's cache against the reference's.
#include "checkpoint/test_files.h"
#include "engine/batch.h"
#include "engine/session.h"
#include "goldens.h"

namespace nibble {
namespace {

struct Context {
  std::vector<int32_t> prompt;  // that is repeated
  int64_t length;
};
const Context kShort = {{5, 17, 3, 40}, 23};

Context long_context() {
  Context context{{}, 200};
  for (int32_t i = 0; i < 70; i++) context.prompt.push_back(i * 7 % 60);
  return context;
}

EngineOptions options(const std::string& backend, KvCacheType type, const Context& context = kShort) {
  const auto period = static_cast<int64_t>(context.prompt.size());
  return {.backend = {.name = backend, .num_threads = 1},
          .kv_cache_type = type,
          .max_len = context.length + 17,
          .num_sequences = 2,
          .prefill_block = period,
          .kv_spare = period};
}

std::vector<float> copied(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

std::vector<float> after_repeat(Engine& engine, const Context& context = kShort) {
  Session session(engine);
  session.prefill(context.prompt);
  session.repeat(context.length);
  EXPECT_EQ(session.length(), context.length);
  for (const size_t i : {21, 22}) EXPECT_EQ(session.tokens()[i], context.prompt[i % context.prompt.size()]);
  EXPECT_EQ(session.tokens().back(), context.prompt[static_cast<size_t>(context.length - 1) % context.prompt.size()]);
  return copied(session.decode(8));
}

// A layer with a window of 5 keeps 9 rows, over which 23 positions go twice; or 75 (128 where positions of 8 bits are
// interleaved), over which 200 go.
TEST(Repeat, EveryBackendFillsItsCacheAsTheReferenceDoes) {
  for (const char* name : {"qwen3-gguf-mxfp4", "mixtral-one-expert", "deepseek_v3-groups", "gpt_oss-gguf-mxfp4"})
    for (const auto& [type, context] :
         {std::pair{KvCacheType::f16, kShort}, {KvCacheType::q8_0, kShort}, {KvCacheType::q8_0, long_context()}}) {
      const auto model = model_in(kModels / name);
      Engine reference(model, options("reference", type, context));
      const std::vector<float> expected = after_repeat(reference, context);
      for (const std::string_view backend : backend_names()) {
        if (backend == "metal" && type == KvCacheType::q8_0) continue;  // it has none
        SCOPED_TRACE(fmt::format("{} {} {} {}", name, kv_cache_type_name(type), context.length, backend));
        Engine engine(model, options(std::string(backend), type, context));
        const std::vector<float> logits = after_repeat(engine, context);
        // Codes of 8 bits may fall to either side: up to 1.3e-4 over 200 positions. One row that is another's: 4e-3 and more.
        EXPECT_LT(mean_kl(expected, logits, logits.size()), context.length > kShort.length ? 5e-4 : 1e-4);
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
  batch.prefill(kShort.prompt, 1);
  batch.repeat(1, kShort.length);
  EXPECT_EQ(batch.length(1), kShort.length);
  EXPECT_EQ(copied(batch.extend(std::vector<int32_t>{7}, std::vector<int32_t>{0})), neighbour);
  EXPECT_EQ(copied(batch.extend(std::vector<int32_t>{8}, std::vector<int32_t>{1})), expected);
}

TEST(Repeat, ErrorsNameBothValues) {
  Engine engine(model_in(kModels / "qwen3-gguf-mxfp4"), options("cpu", KvCacheType::f16));
  Session session(engine);
  expect_parts(error_of([&] { session.repeat(9); }), {"0 positions to repeat", "1 to 4"});
  session.prefill(kShort.prompt);
  expect_parts(error_of([&] { session.repeat(41); }), {"41 positions", "context of 40"});
  EXPECT_EQ(session.length(), 4);
  session.repeat(2);  // fewer than there are: nothing to do
  EXPECT_EQ(session.length(), 4);
  Batch batch(engine);
  expect_parts(error_of([&] { batch.repeat(1, 9); }), {"sequence 1", "0 positions to repeat", "1 to 4"});
  batch.prefill(kShort.prompt, 1);
  expect_parts(error_of([&] { batch.repeat(1, 41); }), {"sequence 1", "41 positions", "context of 40"});
}

}  // namespace
}  // namespace nibble
