// All golden checkpoints open, if the folder of fixtures is there.
#include <cstdio>

#include "checkpoint/checkpoint.h"
#include "checkpoint/test_files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> fixtures(std::string_view kind) {
  const auto folder = fs::path(NIBBLE_FIXTURES) / kind;
  std::vector<fs::path> paths;
  if (!fs::exists(folder)) {
    std::printf("%s is not there: nothing to open\n", folder.c_str());
    return paths;
  }
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  return paths;
}

void expect_tensors(const Checkpoint& checkpoint) {
  EXPECT_GT(checkpoint.tensors.size(), 0u);
  for (const auto& [name, tensor] : checkpoint.tensors) {
    EXPECT_EQ(name, tensor.name);
    EXPECT_EQ(tensor.bytes.size(), static_cast<size_t>(tensor_bytes(tensor.dtype, tensor.shape, name)));
  }
}

TEST(Fixtures, EveryFolderOpens) {
  for (const auto& path : fixtures("checkpoints")) {
    SCOPED_TRACE(path.string());
    const auto checkpoint = open_checkpoint(path);
    EXPECT_EQ(checkpoint.container, Container::safetensors);
    expect_tensors(checkpoint);
    const auto& config = checkpoint.config;
    ASSERT_TRUE(config.contains("vocab_size") && config.contains("hidden_size"));
    const Tensor* norm = checkpoint.find("model.norm.weight");
    ASSERT_NE(norm, nullptr);
    EXPECT_EQ(norm->shape, std::vector<int64_t>{config["hidden_size"]});
  }
}

TEST(Fixtures, EveryGgufOpens) {
  for (const auto& path : fixtures("gguf")) {
    SCOPED_TRACE(path.string());
    const auto checkpoint = open_checkpoint(path / "model.gguf");
    EXPECT_EQ(checkpoint.container, Container::gguf);
    expect_tensors(checkpoint);
    const auto width =
        checkpoint.config.at(checkpoint.config.at("general.architecture").get<std::string>() + ".embedding_length");
    const Tensor* embedding = checkpoint.find("token_embd.weight");
    ASSERT_NE(embedding, nullptr);
    ASSERT_EQ(embedding->shape.size(), 2u);
    EXPECT_EQ(embedding->shape[1], width);  // outermost first: [vocabulary, width]
  }
}

}  // namespace
}  // namespace nibble
