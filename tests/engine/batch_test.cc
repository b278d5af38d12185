// Several sequences in one step: what one is given does not depend, to the bit, on who is beside it.
#include "engine/batch.h"

#include <map>
#include <set>

#include "checkpoint/test_files.h"
#include "goldens.h"
#include "small_shapes.h"

namespace nibble {
namespace {

constexpr int64_t kMaxLen = 48;

// One token of one sequence. The logits of each are collected in `rows`, by sequence.
using Rows = std::map<int32_t, std::vector<float>>;

void extend(Batch& batch, Rows& rows, const std::vector<int32_t>& tokens, const std::vector<int32_t>& sequences) {
  const std::span<const float> logits = batch.extend(tokens, sequences);
  const size_t width = logits.size() / tokens.size();
  for (size_t i = 0; i < tokens.size(); i++) {
    const auto row = logits.subspan(i * width, width);
    rows[sequences[i]].insert(rows[sequences[i]].end(), row.begin(), row.end());
  }
}

// Token t of a sequence: each has other ones.
int32_t token(int32_t sequence, int64_t t) { return static_cast<int32_t>((t * 7 + sequence * 13 + 1) % 64); }

// Sequence s alone, token by token, in a cache of its own.
std::vector<float> alone(Engine& engine, int32_t s, int64_t count) {
  Batch batch(engine);
  Rows rows;
  for (int64_t t = 0; t < count; t++) extend(batch, rows, {token(s, t)}, {0});
  return rows[0];
}

// Four sequences of unlike lengths that begin at unlike times: prompts in blocks while others decode, the order of the
// sequences and their number changing from step to step.
void expect_independence(Engine& one, Engine& four) {
  Batch batch(four);
  Rows rows;
  std::vector<int64_t> next(4);
  const auto step = [&](const std::vector<int32_t>& sequences) {
    std::vector<int32_t> tokens;
    for (const int32_t s : sequences) tokens.push_back(token(s, next[static_cast<size_t>(s)]++));
    extend(batch, rows, tokens, sequences);
  };
  step({2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2});  // a prompt
  step({0, 2});
  step({2, 1, 1, 1, 1, 1, 0});
  for (int i = 0; i < 12; i++) {
    step({0, 1, 2, 3});
    step({3, 1, 0});
    step({2, 3, 1, 0});
  }
  for (int32_t s = 0; s < 4; s++) {
    ASSERT_EQ(batch.length(s), next[static_cast<size_t>(s)]);
    EXPECT_EQ(rows[s], alone(one, s, next[static_cast<size_t>(s)])) << "sequence " << s;
  }
}

EngineOptions options(const std::string& backend, int num_threads, int64_t num_sequences) {
  return {.backend = {.name = backend, .num_threads = num_threads}, .max_len = kMaxLen, .num_sequences = num_sequences};
}

using Case = std::tuple<std::string, std::string>;  // shape, backend
class BatchTest : public testing::TestWithParam<Case> {
 protected:
  const std::string shape = std::get<0>(GetParam()), backend = std::get<1>(GetParam());
  Engine engine(int num_threads, int64_t num_sequences) const {
    return {random_model(small_shape(shape), published_formats(FormatId::mxfp4)),
            options(backend, num_threads, num_sequences)};
  }
};

// Dense; experts with windows (of 9 positions) and sinks; experts with latent attention.
INSTANTIATE_TEST_SUITE_P(Shapes, BatchTest,
                         testing::Combine(testing::Values("llama-3.1-8b", "gpt-oss-20b", "glm-4.7-flash"),
                                          testing::Values("cpu", "reference")),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param) + "_" + std::get<1>(test.param);
                           std::ranges::replace_if(name, [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

TEST_P(BatchTest, ASequenceDoesNotDependOnItsNeighbours) {
  for (const int num_threads : backend == "cpu" ? std::vector{1, 2} : std::vector{1}) {
    Engine one = engine(num_threads, 1), four = engine(num_threads, 4);
    expect_independence(one, four);
  }
}

TEST_P(BatchTest, BytesOfAStepAreThoseOfTheExpertsChosen) {
  Engine five = engine(1, 5);
  Batch batch(five);
  const std::vector<int32_t> sequences = {0, 1, 2, 3, 4};
  const int64_t kv_bytes = five.kv_cache_shape().bytes_read(1);
  // Five sequences that say the same choose the same experts: the weights of one token.
  batch.extend(std::vector<int32_t>{7}, std::vector<int32_t>{0});
  const int64_t of_one = batch.step(1).last_weight_bytes();
  EXPECT_EQ(of_one, batch.step(1).weight_bytes());
  batch.truncate(0);
  batch.extend(std::vector<int32_t>(5, 7), sequences);
  EXPECT_EQ(batch.step(5).last_weight_bytes(), of_one);
  EXPECT_EQ(batch.bytes_per_step(), of_one + 5 * kv_bytes);
  // Others choose others: at least what one reads, and at most all experts.
  batch.truncate(0);
  batch.extend(std::vector<int32_t>{1, 20, 33, 40, 57}, sequences);
  const int64_t of_five = batch.step(5).last_weight_bytes();
  EXPECT_LE(of_five, batch.step(5).weight_bytes());
  if (five.model().config.moe)
    EXPECT_GT(of_five, of_one);
  else
    EXPECT_EQ(of_five, of_one);
}

TEST(Batch, ItGoesNoFurtherBackThanItsCachesReach) {
  EngineOptions few = options("cpu", 1, 2);
  few.prefill_block = few.kv_spare = 4;
  Engine engine(random_model(small_shape("gpt-oss-20b"), published_formats(FormatId::mxfp4)), few);
  Batch batch(engine);
  batch.prefill(std::vector<int32_t>(30, 3), 1);
  batch.truncate(26);
  expect_parts(error_of([&] { batch.truncate(20); }), {"sequence 1", "30 positions", "back to 20", "keep 4 positions"});
  EXPECT_EQ(batch.length(1), 26);
  expect_parts(error_of([&] { batch.extend(std::vector<int32_t>(6, 3), std::vector<int32_t>(6, 1)); }),
               {"sequence 1", "6 tokens in one step", "at most 5"});
  batch.truncate(0);
  EXPECT_EQ(batch.length(1), 0);
}

// Both backends choose, and therefore count, the same.
TEST(Batch, BothBackendsReadTheSameExperts) {
  for (const char* shape : {"gpt-oss-20b", "glm-4.7-flash"}) {
    std::vector<int64_t> shares;  // of the most that a step could read, sizes being other ones when packed
    std::vector<std::set<int64_t>> expert_counts;
    for (const char* backend : {"cpu", "reference"}) {
      Engine engine(random_model(small_shape(shape), published_formats(FormatId::mxfp4)), options(backend, 1, 6));
      Batch batch(engine);
      const std::vector<int32_t> tokens = {1, 1, 30, 44, 58, 9}, sequences = {0, 1, 2, 3, 4, 5};
      batch.extend(tokens, sequences);
      int64_t expert_bytes = 0, fixed = 0, num_experts = 0;
      for (const WeightEntry& entry : engine.model().weights.entries())
        if (const auto* m = std::get_if<MatrixEntry>(&entry.what); m && m->request.is_experts && m->info.E == 8) {
          const int64_t bytes = engine.backend().plan_pack(m->info.format, m->info.E, m->info.N, m->info.K).bytes;
          expert_bytes = bytes / m->info.E;  // gate, up and down are of one size here
          num_experts += 8;
        }
      fixed = batch.step(6).weight_bytes();
      const int64_t unread = fixed - batch.step(6).last_weight_bytes();
      EXPECT_EQ(unread % expert_bytes, 0) << backend;
      EXPECT_LT(unread / expert_bytes, num_experts);
      shares.push_back(unread / expert_bytes);
    }
    EXPECT_EQ(shares[0], shares[1]) << shape;
  }
}

TEST(Batch, PromptsGoThroughInBlocks) {
  Engine engine(kModels / "llama-ct-mxfp4",
                {.backend = {.num_threads = 1}, .max_len = kMaxLen, .num_sequences = 2, .prefill_block = 5});
  const std::vector<float> expected = alone(engine, 3, 12);
  Batch batch(engine);
  std::vector<int32_t> prompt;
  for (int64_t t = 0; t < 12; t++) prompt.push_back(token(3, t));
  batch.prefill(std::vector<int32_t>(7, 2), 0);
  const std::span<const float> logits = batch.prefill(prompt, 1);
  EXPECT_TRUE(std::ranges::equal(logits, std::span(expected).last(logits.size())));
  EXPECT_EQ(batch.length(0), 7);
  EXPECT_EQ(batch.length(1), 12);
}

TEST(Batch, ErrorsNameBothValuesAndNothingIsExtended) {
  Engine engine(kModels / "llama-ct-mxfp4", options("cpu", 1, 2));
  Batch batch(engine);
  const auto error = [&](const std::vector<int32_t>& tokens, const std::vector<int32_t>& sequences) {
    return error_of([&] { batch.extend(tokens, sequences); });
  };
  expect_parts(error({1, 1}, {0, 2}), {"sequence 2", "there are 2"});
  expect_parts(error({1, 1}, {0, -1}), {"sequence -1", "there are 2"});
  expect_parts(error({1, 1 << 20}, {0, 1}), {"token 1048576", "vocabulary has"});
  expect_parts(error({1, 1}, {0}), {"2 tokens for 1 sequences"});
  expect_parts(error({}, {}), {"0 tokens"});
  batch.prefill(std::vector<int32_t>(47, 1), 1);
  expect_parts(error({1, 1, 1}, {1, 0, 1}), {"sequence 1", "49 tokens", "context of 48"});
  EXPECT_EQ(batch.length(0), 0);
  EXPECT_EQ(batch.length(1), 47);
}

TEST(Batch, TheMemoryPlanCountsAllCaches) {
  Engine one(kModels / "llama-ct-mxfp4", options("cpu", 1, 1)), four(kModels / "llama-ct-mxfp4", options("cpu", 1, 4));
  const auto kv_bytes = [](Engine& e) {
    return plan_memory(e.model(), e.backend(), e.kv_cache_shape(), 8).kv_cache_bytes;
  };
  EXPECT_EQ(kv_bytes(four), 4 * kv_bytes(one));
}

}  // namespace
}  // namespace nibble
