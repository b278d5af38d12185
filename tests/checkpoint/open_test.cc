// open_checkpoint on folders and paths of all kinds.
#include "checkpoint/checkpoint.h"
#include "checkpoint/test_files.h"

namespace nibble {
namespace {

// A safetensors file with one-byte tensors.
std::string shard(std::initializer_list<std::pair<std::string, char>> tensors) {
  auto header = nlohmann::json::object();
  std::string data;
  for (const auto& [name, value] : tensors) {
    header[name] = {{"dtype", "U8"}, {"shape", {1}}, {"data_offsets", {data.size(), data.size() + 1}}};
    data += value;
  }
  return raw<uint64_t>(header.dump().size()) + header.dump() + data;
}

std::string index(std::initializer_list<std::pair<std::string, std::string>> tensors) {
  auto weight_map = nlohmann::json::object();
  for (const auto& [name, file] : tensors) weight_map[name] = file;
  return nlohmann::json{{"weight_map", weight_map}}.dump();
}

std::string open_fault(const std::filesystem::path& path) {
  auto message = error_of([&] { open_checkpoint(path); });
  EXPECT_TRUE(message.starts_with(path.string())) << message;
  return message;
}

char value_of(const Checkpoint& checkpoint, std::string_view name) {
  const Tensor* tensor = checkpoint.find(name);
  return tensor == nullptr ? '?' : static_cast<char>(tensor->bytes[0]);
}

TEST(OpenCheckpoint, AFolderWithOneFile) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"model_type": "llama", "model_type": "qwen3"})");  // as Python reads it, the last
  folder.write("model.safetensors", shard({{"a", 'x'}, {"b", 'y'}}));
  folder.write("consolidated.safetensors", shard({{"other", 'x'}}));
  const auto checkpoint = open_checkpoint(folder.path());
  EXPECT_EQ(checkpoint.container, Container::safetensors);
  EXPECT_EQ(checkpoint.path, folder.path());
  EXPECT_EQ(checkpoint.config["model_type"], "qwen3");
  EXPECT_TRUE(checkpoint.hf_quant_config.is_null());
  EXPECT_TRUE(checkpoint.generation_config.is_null());
  EXPECT_EQ(checkpoint.files.size(), 1u);
  EXPECT_EQ(checkpoint.tensors.size(), 2u);
  EXPECT_EQ(value_of(checkpoint, "b"), 'y');
  EXPECT_EQ(checkpoint.find("c"), nullptr);
}

TEST(OpenCheckpoint, TheFilesBesideTheWeights) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors", shard({{"a", 'x'}}));
  folder.write("generation_config.json", R"({"eos_token_id": [1, 2]})");
  folder.write("hf_quant_config.json", R"({"quantization": {}})");
  const auto checkpoint = open_checkpoint(folder.path());
  EXPECT_EQ(checkpoint.generation_config["eos_token_id"][1], 2);
  EXPECT_TRUE(checkpoint.hf_quant_config["quantization"].is_object());
  const auto broken = folder.write("generation_config.json", "{");
  expect_parts(open_fault(folder.path()), {broken.string() + ": not valid JSON at byte 2"});
}

TEST(OpenCheckpoint, AnyFilesWithoutAnIndex) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  folder.write("one.safetensors", shard({{"a", 'x'}}));
  folder.write("two.safetensors", shard({{"b", 'y'}}));
  const auto checkpoint = open_checkpoint(folder.path());
  EXPECT_EQ(value_of(checkpoint, "a"), 'x');
  EXPECT_EQ(value_of(checkpoint, "b"), 'y');
  const auto path = folder.write("zwei.safetensors", shard({{"b", 'y'}}));
  expect_parts(open_fault(folder.path()), {path.string() + ": tensor b: ", "also in two.safetensors"});
}

TEST(OpenCheckpoint, ShardsByTheIndex) {
  const TemporaryFolder folder;
  const auto& path = folder.path();
  folder.write("config.json", "{}");
  folder.write("1.safetensors", shard({{"a", 'x'}, {"b", 'y'}}));
  folder.write("2.safetensors", shard({{"c", 'z'}}));
  folder.write("stray.safetensors", shard({{"d", 'z'}}));  // the index does not name it
  const auto name = std::string("model.safetensors.index.json");
  folder.write(name, index({{"a", "1.safetensors"}, {"b", "1.safetensors"}, {"c", "2.safetensors"}}));
  const auto checkpoint = open_checkpoint(path);
  EXPECT_EQ(checkpoint.tensors.size(), 3u);
  EXPECT_EQ(checkpoint.files.size(), 2u);
  EXPECT_EQ(value_of(checkpoint, "c"), 'z');

  folder.write(name, index({{"a", "1.safetensors"}, {"e", "2.safetensors"}}));
  expect_parts(open_fault(path), {(path / "2.safetensors").string() + ": tensor e: is not there", name});
  folder.write(name, index({{"a", "2.safetensors"}, {"b", "1.safetensors"}}));
  expect_parts(open_fault(path),
               {(path / "2.safetensors").string() + ": tensor a: is not there", "it is in 1.safetensors"});
  folder.write(name, index({{"a", "1.safetensors"}, {"c", "3.safetensors"}}));
  expect_parts(open_fault(path), {(path / "3.safetensors").string() + ": is not there", "tensor c"});
  for (const auto* elsewhere : {"../1.safetensors", "/etc/passwd", "..", ""}) {
    folder.write(name, index({{"a", elsewhere}}));
    expect_parts(open_fault(path), {(path / name).string() + ": tensor a: ", fmt::format("\"{}\"", elsewhere)});
  }
  folder.write(name, R"({"weight_map": {"a": 3}})");
  expect_parts(open_fault(path), {(path / name).string() + ": tensor a: "});
  folder.write(name, R"({"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}})");
  expect_parts(open_fault(path), {(path / name).string() + ": the key \"a\" is there twice"});
  folder.write(name, "{}");
  expect_parts(open_fault(path), {(path / name).string() + ": has no object \"weight_map\""});
  folder.write("2.safetensors", shard({{"b", 'z'}, {"c", 'z'}}));
  folder.write(name, index({{"b", "1.safetensors"}, {"c", "2.safetensors"}}));
  expect_parts(open_fault(path), {(path / "2.safetensors").string() + ": tensor b: ", "also in 1.safetensors"});
}

TEST(OpenCheckpoint, WhatIsNoCheckpoint) {
  const TemporaryFolder folder;
  const auto& path = folder.path();
  expect_parts(open_fault(path / "none"), {(path / "none").string() + ": does not exist"});
  expect_parts(open_fault(path / std::string(5000, 'x')), {": cannot be read: File name too long"});
  expect_parts(open_fault(path), {": has no config.json", "Hugging Face"});
  const auto gguf = folder.write("m.gguf", "GGUF");
  expect_parts(open_fault(path), {": has no config.json", "name " + gguf.string()});
  expect_parts(open_fault(gguf), {gguf.string() + ": version: 4 bytes expected"});

  folder.write("config.json", "[]");
  expect_parts(open_fault(path), {(path / "config.json").string() + ": a JSON array"});
  folder.write("config.json", "{}");
  expect_parts(open_fault(path), {path.string() + ": has no *.safetensors"});
  const auto weights = folder.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
  expect_parts(open_fault(path), {weights.string() + ": is a Git LFS pointer of 57 bytes"});
  folder.write("model.safetensors", "");
  expect_parts(open_fault(path), {weights.string() + ": has 0 bytes"});
  expect_parts(open_fault(weights), {weights.string() + ": is only the weights", "folder"});
}

}  // namespace
}  // namespace nibble
