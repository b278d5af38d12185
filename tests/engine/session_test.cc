#include "engine/session.h"

#include "base/memory.h"
#include "checkpoint/test_files.h"
#include "goldens.h"

namespace nibble {
namespace {

class SessionTest : public testing::Test {
 protected:
  const Golden golden = read_golden(kModels / "qwen3-gguf-mxfp4");
  Engine engine{golden.model, {.backend = {.num_threads = 1}, .max_len = 40, .prefill_block = 5}};
  Session session{engine};
  const std::vector<float> all_logits = forward(engine, golden.prompt, 16);

  std::vector<float> row(size_t m) const {
    return {all_logits.begin() + static_cast<std::ptrdiff_t>(m * 131),
            all_logits.begin() + static_cast<std::ptrdiff_t>((m + 1) * 131)};
  }
  std::vector<float> prefill(std::span<const int32_t> tokens) {
    const auto logits = session.prefill(tokens);
    return {logits.begin(), logits.end()};
  }
  std::string error(std::vector<int32_t> tokens) {
    return error_of([&] { session.prefill(tokens); });
  }
};

TEST_F(SessionTest, PrefillGivesTheLastTokensLogits) {
  EXPECT_EQ(session.max_len(), 40);
  EXPECT_EQ(session.length(), 0);
  EXPECT_EQ(prefill(std::span(golden.prompt).first(7)), row(6));
  EXPECT_EQ(session.length(), 7);
  EXPECT_EQ(prefill(std::span(golden.prompt).subspan(7, 1)), row(7));
  EXPECT_EQ(prefill(std::span(golden.prompt).subspan(8)), row(15));
  EXPECT_EQ(session.length(), 16);
}

TEST_F(SessionTest, DecodeGoesOnFromThePrompt) {
  prefill(std::span(golden.prompt).first(9));
  for (size_t i = 9; i < 16; i++) {
    const auto logits = session.decode(golden.prompt[i]);
    EXPECT_EQ(std::vector(logits.begin(), logits.end()), row(i));
  }
}

TEST_F(SessionTest, TruncateForgets) {
  prefill(golden.prompt);
  prefill(std::vector<int32_t>(20, 1));
  session.truncate(10);
  EXPECT_EQ(session.length(), 10);
  EXPECT_EQ(prefill(std::span(golden.prompt).subspan(10)), row(15));
  session.truncate(100);  // longer than what is there changes nothing
  EXPECT_EQ(session.length(), 16);
  session.truncate(0);
  EXPECT_EQ(prefill(std::span(golden.prompt).first(3)), row(2));
}

// Windows of 5 positions, of which the caches keep 5 + 4; after so many tokens before.
void expect_to_go_back(KvCacheType type, size_t before) {
  const Golden golden = read_golden(kModels / "mixtral-one-expert");
  Engine engine(
      golden.model,
      {.backend = {.num_threads = 1}, .kv_cache_type = type, .max_len = 128, .prefill_block = 4, .kv_spare = 4});
  const int64_t vocab_size = engine.model().config.vocab_size;
  std::vector<int32_t> tokens(before + 30);
  for (size_t i = 0; i < tokens.size(); i++) tokens[i] = static_cast<int32_t>(i * 37 % static_cast<size_t>(vocab_size));
  const std::vector<float> all = forward(engine, tokens, 30);
  Session session(engine);
  const auto expect_rest = [&](size_t from, size_t count) {
    const auto logits = session.prefill(std::span(tokens).subspan(from, count));
    const auto row = std::span(all).subspan((from + count - 1) * static_cast<size_t>(vocab_size), logits.size());
    EXPECT_TRUE(std::ranges::equal(logits, row)) << from;
  };
  const auto length_after_truncate = [&](size_t length) {
    session.truncate(static_cast<int64_t>(length));
    return static_cast<size_t>(session.length());
  };
  expect_rest(0, before + 20);
  EXPECT_EQ(length_after_truncate(before + 16), before + 16);
  expect_rest(before + 16, 2);
  // Position 10 would be needed; of 20 that were there, 11 … 19 are left.
  EXPECT_EQ(length_after_truncate(before + 14), 0u);
  expect_rest(0, before + 9);
  EXPECT_EQ(length_after_truncate(before + 5), before + 5);
  expect_rest(before + 5, 25);
}

TEST(SessionWithWindows, GoesBackAsFarAsItsCachesReachOrStartsAgain) {
  for (const KvCacheType type : {KvCacheType::f16, KvCacheType::q8_0}) {
    SCOPED_TRACE(kv_cache_type_name(type));
    for (const size_t before : {0, 70}) expect_to_go_back(type, before);  // a ring of 8 bits may have 64 rows
  }
}

TEST_F(SessionTest, ItKnowsItsTokensAndKeepsAPrefix) {
  const auto tokens = [&] { return std::vector<int32_t>(session.tokens().begin(), session.tokens().end()); };
  const auto prompt = [&](size_t count) { return std::span(golden.prompt).first(count); };
  EXPECT_EQ(session.keep_prefix(prompt(16)), 0);  // nothing is there yet
  prefill(prompt(10));
  session.decode(golden.prompt[10]);
  EXPECT_EQ(tokens(), std::vector<int32_t>(golden.prompt.begin(), golden.prompt.begin() + 11));
  EXPECT_EQ(session.keep_prefix(golden.prompt), 11);
  EXPECT_EQ(prefill(std::span(golden.prompt).subspan(11)), row(15));
  EXPECT_EQ(session.keep_prefix(golden.prompt), 15);  // its last token's logits are wanted
  EXPECT_EQ(prefill(std::span(golden.prompt).subspan(15)), row(15));
  std::vector<int32_t> other = golden.prompt;
  other[4] = (other[4] + 1) % 131;
  EXPECT_EQ(session.keep_prefix(other), 4);
  EXPECT_EQ(tokens(), std::vector<int32_t>(golden.prompt.begin(), golden.prompt.begin() + 4));
  EXPECT_EQ(session.keep_prefix({}), 0);
}

TEST_F(SessionTest, APromptEndsBetweenBlocksOnceItIsStopped) {
  const std::atomic<bool> stop = true, go_on = false;
  EXPECT_TRUE(session.prefill(golden.prompt, &stop).empty());
  EXPECT_EQ(session.length(), 0);
  const auto logits = session.prefill(golden.prompt, &go_on);
  EXPECT_EQ(std::vector(logits.begin(), logits.end()), row(15));
}

TEST_F(SessionTest, TwoSessionsOfAnEngineDoNotMix) {
  Session other(engine);
  other.prefill(std::vector<int32_t>(11, 3));
  prefill(std::span(golden.prompt).first(12));
  other.prefill(std::vector<int32_t>(5, 7));
  EXPECT_EQ(prefill(std::span(golden.prompt).subspan(12)), row(15));
  EXPECT_EQ(other.length(), 16);
}

TEST_F(SessionTest, BytesPerTokenGrowWithTheCache) {
  const int64_t weights = session.decode_step().weight_bytes();
  EXPECT_GT(weights, 0);
  EXPECT_EQ(session.bytes_per_token(), weights);
  prefill(golden.prompt);
  EXPECT_EQ(session.bytes_per_token(), weights + 16 * 2 * (64 + 64) * 2);  // 16 positions, 2 layers, 2 × 32 halves each
  EXPECT_EQ(engine.kv_cache_shape().bytes_per_token(), 2 * (64 + 64) * 2);
}

TEST_F(SessionTest, ErrorsNameBothValues) {
  expect_parts(error({1, 131}), {"token 131", "vocabulary has 131 tokens"});
  expect_parts(error({1, -1}), {"token -1", "vocabulary has 131 tokens"});
  expect_parts(error({}), {"no tokens", "at least 1"});
  expect_parts(error(std::vector<int32_t>(41, 1)), {"41 tokens", "context of 40", "--ctx", "256"});
  EXPECT_EQ(session.length(), 0);  // nothing has gone through
  prefill(std::vector<int32_t>(40, 1));
  expect_parts(error({1}), {"41 tokens", "context of 40"});
  std::vector<float> out(131);
  expect_parts(error_of([&] { session.forward(std::vector<int32_t>(1, 5), 1, out.data()); }),
               {"41 tokens", "context of 40"});
}

TEST_F(SessionTest, AContextIsNoLongerThanTheModels) {
  Engine wide(golden.model, {.backend = {.num_threads = 1}, .max_len = 1 << 20});
  EXPECT_EQ(Session(wide).max_len(), 256);
  EXPECT_EQ(wide.kv_cache_shape().max_len, 256);
}

TEST_F(SessionTest, AContextHasAPosition) {
  for (const int64_t max_len : {0, -1})
    expect_parts(error_of([&] { Engine(golden.model, {.backend = {.num_threads = 1}, .max_len = max_len}); }),
                 {golden.model.string(), fmt::format("a context of {} positions", max_len), "1 to 256 expected"});
}

// Every weight is finite, and yet each logit is a sum of infinities of both signs.
TEST(SessionOfDamagedWeights, LogitsThatAreNanAreAnError) {
  TemporaryFolder folder;
  std::filesystem::copy(kTalking, folder.path(), std::filesystem::copy_options::recursive);
  std::string bytes = folder.read("model.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const auto norm = parse_json(bytes.substr(8, header_bytes)).at("model.norm.weight");
  ASSERT_EQ(norm.at("dtype"), "BF16");
  const auto begin = norm.at("data_offsets").at(0).get<size_t>(), end = norm.at("data_offsets").at(1).get<size_t>();
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(8 + header_bytes + begin), end - begin, '\x7F');  // 3.39e38
  folder.write("model.safetensors", bytes);
  Engine engine = open_engine(folder.path(), "reference");
  Session session(engine);
  const std::vector<int32_t> tokens = {1, 2, 3};
  expect_parts(error_of([&] { session.prefill(tokens); }),
               {folder.path().string(), "all logits at position 2 are NaN"});
  session.truncate(0);
  std::vector<float> logits(3 * static_cast<size_t>(engine.model().config.vocab_size));
  expect_parts(error_of([&] { session.forward(tokens, 2, logits.data()); }),
               {folder.path().string(), "all logits at position 0 are NaN"});
}

TEST_F(SessionTest, TheCachesTypeIsAChoice) {
  EXPECT_EQ(engine.kv_cache_shape().type, KvCacheType::f16);
  const auto logits = [&](const char* backend, std::optional<KvCacheType> type) {
    Engine other(golden.model, {.backend = {.name = backend, .num_threads = 1}, .kv_cache_type = type, .max_len = 40});
    return forward(other, golden.prompt, 16);
  };
  const auto exact = logits("reference", {});
  const double f32 = mean_kl(exact, logits("cpu", KvCacheType::f32), 131);
  const double f16 = mean_kl(exact, logits("cpu", {}), 131);
  EXPECT_LT(f32, 1e-5);
  EXPECT_LT(f16, 3e-5);
  EXPECT_NE(f32, f16);
  // The reference rounds to halves on demand too.
  const double reference_f16 = mean_kl(exact, logits("reference", KvCacheType::f16), 131);
  EXPECT_GT(reference_f16, 0);
  EXPECT_LT(reference_f16, 3e-5);
  // Rounded to 8 bits alike, but where a value lies between two codes: 3.9e-5 apart, and 7.0e-4 from float32.
  const auto q8_0 = logits("cpu", KvCacheType::q8_0);
  EXPECT_LT(mean_kl(logits("reference", KvCacheType::q8_0), q8_0, 131), 2e-4);
  EXPECT_LT(mean_kl(exact, q8_0, 131), 2e-3);
  EXPECT_GT(mean_kl(exact, q8_0, 131), 1e-4);
}

TEST(Engine, ATypeOfCacheThatTheBackendHasNotIsRefused) {
  if (std::ranges::count(backend_names(), "metal") == 0) GTEST_SKIP() << "not in this build";
  const EngineOptions options{.backend = {.name = "metal"}, .kv_cache_type = KvCacheType::q8_0};
  expect_parts(error_of([&] { Engine(kTalking, options); }), {"backend metal", "type q8_0", "f16 or f32"});
}

TEST(Engine, UnknownBackendsAreRefusedWithThoseThatThereAre) {
  expect_parts(error_of([] { make_backend({.name = "tpu"}); }), {"backend tpu", "cpu, reference"});
  expect_parts(error_of([] { make_backend({.activation_bits = 7}); }), {"7 bits", "15 and 8"});
  expect_parts(error_of([] { make_backend({.name = "reference", .activation_bits = 8}); }), {"8 bits", "reference"});
  const std::vector<std::string_view> names = backend_names();  // metal is among them if it was built
  for (const std::string_view name : {"cpu", "reference"}) EXPECT_EQ(std::ranges::count(names, name), 1) << name;
  EXPECT_EQ(make_backend({})->name(), names.front());
}

TEST(Engine, ACacheThatDoesNotFitIntoMemoryIsRefusedWithTheNumbers) {
  // A model that promises 2^28 positions, of which each takes 2 layers × 2 × 44 halves.
  const TemporaryFolder folder;
  std::filesystem::copy(kModels / "llama-bf16", folder.path());
  auto config = parse_json(read_bytes(folder.path() / "config.json"));
  config["max_position_embeddings"] = 1 << 28;
  config["num_key_value_heads"] = 2;
  folder.write("config.json", config.dump());
  if (available_memory_bytes() > 200'000'000'000) {
    std::printf("this machine has so much memory that the cache would fit: nothing tested\n");
    return;
  }
  const int64_t needed_mb = ((int64_t{1} << 28) * 2 * 2 * 44 * 4) >> 20;
  expect_parts(error_of([&] { Engine(folder.path(), {.kv_cache_type = KvCacheType::f32, .max_len = 1 << 28}); }),
               {folder.path().string(), fmt::format("{} MB of KV cache", needed_mb), "268435456 positions", "--ctx",
                "available"});
}

TEST(Engine, MemoryIsCheckedToTheByteAndNothingIsSaidWhereItIsUnknown) {
  const MemoryPlan plan{.weights_bytes = int64_t{17'000} << 20,
                        .kv_cache_bytes = int64_t{600} << 20,
                        .scratch_bytes = int64_t{20} << 20,
                        .loading_bytes = int64_t{605} << 20};
  const KvCacheShape cache{.layers = {}, .num_sequences = 3, .max_len = 1000};
  EXPECT_EQ(plan.total(), int64_t{18'225} << 20);
  check_memory(plan, cache, plan.total(), "model");
  check_memory(plan, cache, 0, "model");
  expect_parts(error_of([&] { check_memory(plan, cache, plan.total() - 1, "model"); }),
               {"model: 18225 MB needed", "17000 MB of weights", "600 MB of KV cache for 3000 positions",
                "20 MB of scratch)", "18224 MB of memory available", "--ctx"});
}

TEST(Engine, MemoryForTheRoofIsCheckedAndNamed) {
  const MemoryPlan plan{.weights_bytes = int64_t{500} << 20,
                        .kv_cache_bytes = 0,
                        .scratch_bytes = 0,
                        .loading_bytes = int64_t{300} << 20,
                        .roof_bytes = int64_t{1024} << 20};
  check_memory(plan, {.max_len = 1}, int64_t{1524} << 20, "model");
  expect_parts(error_of([&] { check_memory(plan, {.max_len = 1}, (int64_t{1524} << 20) - 1, "model"); }),
               {"model: 1524 MB needed", "1024 MB to measure the read bandwidth", "1523 MB of memory"});
}

TEST(Engine, ProgressCountsUpToAll) {
  std::vector<std::pair<int64_t, int64_t>> heard;
  Engine engine(
      kModels / "llama-mlx-mxfp4",
      {.backend = {.num_threads = 1}, .progress = [&](int64_t done, int64_t all) { heard.emplace_back(done, all); }});
  ASSERT_EQ(heard.size(), engine.model().weights.entries().size());
  for (size_t i = 1; i < heard.size(); i++) EXPECT_GT(heard[i].first, heard[i - 1].first);
  EXPECT_EQ(heard.back().first, heard.back().second);
  EXPECT_EQ(heard.front().second, heard.back().second);
}

TEST(Engine, TheMemoryPlanIsWhatIsTaken) {
  Engine engine(
      kModels / "llama-gguf-q8_0" / "model.gguf",
      {.backend = {.name = "reference"}, .kv_cache_type = KvCacheType::f16, .max_len = 100, .prefill_block = 6});
  const MemoryPlan plan = plan_memory(engine.model(), engine.backend(), engine.kv_cache_shape(), 6);
  EXPECT_EQ(plan.kv_cache_bytes, 100 * 2 * (32 + 32) * 2);
  // x and normed [96], q and attended [96], k and v [32], gate, up and hidden [96], for 6 tokens of a block, as many of a
  // prompt's end, and for the one of a decode step; the last row's x and norm, and its logits.
  EXPECT_EQ(plan.scratch_bytes, 4 * (13 * (4 * 96 + 2 * 32 + 3 * 96) + 3 * (2 * 96 + 131)));
  EXPECT_GE(plan.loading_bytes, 2 * (2 * 96 * 96 + 2 * 32 * 96 + 3 * 96 * 96) / 32 * 34 + 131 * 96 / 32 * 34);
  EXPECT_GE(plan.weights_bytes, 2 * 2 * 96 * 96 + 131 * 96);
  EXPECT_EQ(plan.roof_bytes, 0);
  EXPECT_EQ(plan.total(), plan.weights_bytes + plan.kv_cache_bytes + plan.scratch_bytes + plan.loading_bytes);

  // Only one of the two is there at a time.
  const MemoryPlan bench = plan_memory(engine.model(), engine.backend(), engine.kv_cache_shape(), 6, true);
  EXPECT_EQ(bench.roof_bytes, engine.backend().roof_bytes());
  EXPECT_EQ(bench.total(), plan.total() - plan.loading_bytes + bench.roof_bytes);
}

TEST(Engine, TheMemoryPlanHasTheRowsThatFillACacheUp) {
  for (const char* backend : {"reference", "cpu"}) {
    Engine engine(kModels / "llama-gguf-q8_0" / "model.gguf",
                  {.backend = {.name = backend, .num_threads = 1}, .kv_cache_type = KvCacheType::q8_0, .max_len = 100});
    const int64_t planned = plan_memory(engine.model(), engine.backend(), engine.kv_cache_shape(), 6).kv_cache_bytes;
    const int64_t of_position = 2 * 2 * 34;  // layers, keys and values, a head's group
    EXPECT_TRUE(planned == 100 * of_position || planned == 128 * of_position) << backend << ": " << planned;
  }
}

TEST(Engine, TheScratchMemoryOfAStepIsPlannedToTheByte) {
  for (const std::string backend : {"cpu", "metal"}) {
    if (std::ranges::count(backend_names(), backend) == 0) continue;
    for (const char* model : {"llama-bf16", "glm4_moe_lite-ct-nvfp4", "gpt_oss-mxfp4"}) {
      for (const int num_threads : {1, 3}) {  // 3 share the positions of one token
        Engine engine(kModels / model, {.backend = {.name = backend, .num_threads = num_threads}, .max_len = 2000});
        const std::vector<WeightShape> shapes = weight_shapes(engine.model().weights);
        for (const int64_t M : {1, 3, 9}) {
          const Step step = engine.model().forward(M, LogitsFor::last_token);
          EXPECT_EQ(engine.backend().plan_scratch_bytes(step, shapes, engine.kv_cache_shape()),
                    engine.compile(step)->scratch_bytes())
              << backend << ", " << model << ", " << num_threads << " threads, " << M << " tokens";
        }
      }
    }
  }
}

// A layer's attention to many positions with more threads than key and value heads: the parts of each chunk of 512.
TEST(Engine, ThePartsOfAnAttentionAreScratchMemory) {
  Engine engine(kModels / "llama-bf16", {.backend = {.name = "cpu", .num_threads = 3}, .max_len = 128});
  const auto scratch_bytes = [&](int64_t max_len) {
    KvCacheShape cache = engine.kv_cache_shape();
    cache.max_len = max_len;
    return engine.backend().plan_scratch_bytes(engine.model().forward(1, LogitsFor::last_token),
                                               weight_shapes(engine.model().weights), cache);
  };
  const DecoderConfig& c = engine.model().config;
  EXPECT_EQ(scratch_bytes(100 * 512) - scratch_bytes(512), 99 * c.num_heads * (2 + c.head_dim) * 4);
}

TEST_F(SessionTest, StepsThatWereUsedLastAreKept) {
  StepCache steps(2);
  CompiledStep* two = &steps.get(engine, 2, LogitsFor::last_token);
  CompiledStep* three = &steps.get(engine, 3, LogitsFor::last_token);
  EXPECT_NE(two, three);
  EXPECT_EQ(&steps.get(engine, 2, LogitsFor::last_token), two);
  steps.get(engine, 2, LogitsFor::all_tokens);  // instead of three
  EXPECT_EQ(steps.size(), 2u);
  EXPECT_EQ(&steps.get(engine, 2, LogitsFor::last_token), two);
}

}  // namespace
}  // namespace nibble
