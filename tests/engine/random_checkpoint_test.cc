// Random checkpoints on disk: they load, they are whole, and they hold what the model in memory does.
#include "engine/random_checkpoint.h"

#include <set>

#include "checkpoint/test_files.h"
#include "goldens.h"
#include "small_shapes.h"

namespace nibble {
namespace {

using ModelAndFormat = std::tuple<std::string, FormatId>;
class RandomCheckpointTest : public testing::TestWithParam<ModelAndFormat> {
 protected:
  const Checkpoint shape = small_shape(std::get<0>(GetParam()));
  const FormatId format = std::get<1>(GetParam());
  const TemporaryFolder folder;
};

INSTANTIATE_TEST_SUITE_P(Shapes, RandomCheckpointTest,
                         testing::Combine(testing::Values("llama-3.1-8b", "llama-3.2-1b", "qwen3-0.6b", "qwen3-30b-a3b",
                                                          "mixtral-8x7b", "gpt-oss-20b", "glm-4.7-flash"),
                                          testing::Values(FormatId::mxfp4, FormatId::nvfp4)),
                         [](const auto& test) {
                           std::string name =
                               std::get<0>(test.param) + "_" + std::string(format_name(std::get<1>(test.param)));
                           std::ranges::replace_if(name, [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

TEST_P(RandomCheckpointTest, HoldsTheModelThatIsInMemory) {
  std::vector<std::pair<int64_t, int64_t>> heard;
  const auto hear = [&](int64_t done, int64_t all) { heard.emplace_back(done, all); };
  const int64_t bytes =
      write_random_checkpoint(shape, folder.path(), {.format = format, .max_shard_bytes = 20'000, .progress = hear});
  EXPECT_GT(folder.num_files(), 3u);  // shards, their index, config.json
  EXPECT_GT(bytes, 20'000);
  EXPECT_EQ(heard.back().second, bytes);
  EXPECT_EQ(heard.back().first, bytes);

  const std::vector<int32_t> tokens = {1, 60, 3, 42, 5, 6, 7, 33, 9, 10, 11, 12, 50, 14};
  const EngineOptions options = {.backend = {.name = "reference"}, .max_len = 16};
  Engine written(folder.path(), options), in_memory(random_model(shape, published_formats(format)), options);
  const std::vector<float> logits = forward(written, tokens, 5);
  EXPECT_EQ(logits, forward(in_memory, tokens, 5));
  EXPECT_GT(*std::ranges::max_element(logits), *std::ranges::min_element(logits) + 0.5f);

  // Every tensor of the files belongs to a weight, and every weight is of the format that was meant.
  std::set<std::string> used;
  WeightSource& source = written.model().weights.source();
  for (const WeightEntry& entry : written.model().weights.entries()) {
    if (const auto* m = std::get_if<MatrixEntry>(&entry.what)) {
      EXPECT_EQ(m->info.format, published_formats(format)(m->request)) << entry.name();
      for (const std::string& name : source.tensors_of(m->request)) used.insert(name);
    } else {
      for (const std::string& name : source.tensors_of(std::get<VectorRequest>(entry.what))) used.insert(name);
    }
  }
  EXPECT_EQ(used.size(), written.checkpoint().tensors.size());
  EXPECT_TRUE(source.unused_tensors().empty());
}

TEST(RandomCheckpoint, RefusesWhatItCannotWrite) {
  const TemporaryFolder folder;
  const Checkpoint shape = small_shape("llama-3.1-8b");
  expect_parts(error_of([&] { write_random_checkpoint(shape, folder.path(), {.format = FormatId::q8_0}); }),
               {"NVFP4 or MXFP4", "Q8_0"});
  write_random_checkpoint(shape, folder.path(), {});
  expect_parts(error_of([&] { write_random_checkpoint(shape, folder.path(), {}); }),
               {folder.path().string(), "already holds a model"});
  expect_parts(error_of([&] { write_random_checkpoint(shape, folder.path() / std::string(300, 'x'), {}); }),
               {folder.path().string(), "File name too long"});
}

}  // namespace
}  // namespace nibble
