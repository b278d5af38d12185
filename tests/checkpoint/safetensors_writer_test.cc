#include "checkpoint/safetensors_writer.h"

#include <sys/resource.h>

#include <csignal>

#include "checkpoint/checkpoint.h"
#include "checkpoint/test_files.h"

namespace nibble {
namespace {

// One tensor of each type that safetensors has, narrow ones of odd sizes first; a scalar and an empty one.
std::vector<TensorSpec> all_kinds() {
  std::vector<TensorSpec> specs = {{"scalar", DType::f32, {}}, {"nothing", DType::i64, {3, 0}}};
  for (int i = static_cast<int>(DType::boolean); i >= 0; i--) {
    const auto dtype = static_cast<DType>(i);
    specs.push_back({fmt::format("t.{}", dtype_name(dtype)), dtype, {3, 5}});
  }
  return specs;
}

void write_all(const std::filesystem::path& folder, const std::vector<TensorSpec>& specs, uint64_t max_shard_bytes) {
  SafetensorsWriter writer(folder, specs, max_shard_bytes);
  for (size_t i = 0; i < specs.size(); i++) {
    const auto bytes = pattern(static_cast<uint64_t>(tensor_bytes(specs[i].dtype, specs[i].shape, "")), i);
    const auto half = bytes.size() / 2;  // in two pieces, the second longer
    writer.append(specs[i].name, std::span(bytes).first(half));
    writer.append(specs[i].name, std::span(bytes).subspan(half));
  }
  writer.finish();
}

void expect_all(const Checkpoint& checkpoint, const std::vector<TensorSpec>& specs) {
  EXPECT_EQ(checkpoint.tensors.size(), specs.size());
  for (size_t i = 0; i < specs.size(); i++) {
    const Tensor* tensor = checkpoint.find(specs[i].name);
    ASSERT_NE(tensor, nullptr) << specs[i].name;
    EXPECT_EQ(tensor->name, specs[i].name);
    EXPECT_EQ(tensor->dtype, specs[i].dtype);
    EXPECT_EQ(tensor->shape, specs[i].shape);
    EXPECT_EQ(as_text(tensor->bytes), as_text(pattern(tensor->bytes.size(), i)));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->bytes.data()) % dtype_block(tensor->dtype).bytes, 0u);
  }
}

TEST(SafetensorsWriter, WhatIsWrittenIsRead) {
  const TemporaryFolder folder;
  folder.write("config.json", "{\"a\": 1}");
  write_all(folder.path(), all_kinds(), kDefaultShardBytes);
  EXPECT_EQ(folder.num_files(), 2u);
  expect_all(open_checkpoint(folder.path()), all_kinds());
}

TEST(SafetensorsWriter, ShardsHaveAnIndex) {
  for (const uint64_t max_shard_bytes : {0, 1, 64, 100, 300}) {
    const TemporaryFolder folder;
    folder.write("config.json", "{}");
    write_all(folder.path(), all_kinds(), max_shard_bytes);
    const auto checkpoint = open_checkpoint(folder.path());
    EXPECT_GT(checkpoint.files.size(), 1u);
    EXPECT_EQ(folder.num_files(), 2 + checkpoint.files.size());
    expect_all(checkpoint, all_kinds());
    const auto index = parse_json(folder.read("model.safetensors.index.json"));
    EXPECT_EQ(index["weight_map"]["scalar"], fmt::format("model-00001-of-{:05}.safetensors", checkpoint.files.size()));
    EXPECT_EQ(index["metadata"]["total_size"], 4 + 15 * (3 * 8 + 3 * 4 + 4 * 2 + 6));
  }
}

TEST(SafetensorsWriter, ACheckpointWithoutTensors) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  write_all(folder.path() / "a" / "b", {}, kDefaultShardBytes);
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "a" / "b" / "model.safetensors"));
}

TEST(SafetensorsWriter, GivenUpItLeavesNothing) {
  const TemporaryFolder folder;
  const std::vector<TensorSpec> specs = {{"a", DType::u8, {3}}, {"b", DType::u8, {3}}};
  {
    SafetensorsWriter writer(folder.path(), specs, 3);
    writer.append("a", as_bytes("xyz"));
    writer.append("b", as_bytes("x"));
    EXPECT_EQ(folder.num_files(), 2u);
    expect_parts(error_of([&] { writer.finish(); }), {folder.path().string(), "tensor b: 1 bytes given, 3 expected"});
  }
  EXPECT_EQ(folder.num_files(), 0u);
}

TEST(SafetensorsWriter, GivenUpItLeavesNoFolderThatItMade) {
  const TemporaryFolder folder;
  { SafetensorsWriter writer(folder.path() / "new" / "model", {{"a", DType::u8, {3}}}); }
  EXPECT_EQ(folder.num_files(), 0u);
}

TEST(SafetensorsWriter, RefusesWhatWouldNotBeRead) {
  const TemporaryFolder folder;
  const auto fault = [&](std::vector<TensorSpec> specs) {
    return error_of([&] { SafetensorsWriter(folder.path(), specs); });
  };
  expect_parts(fault({{"a", DType::u8, {3}}, {"a", DType::u8, {3}}}), {folder.path().string(), "tensor a: ", "twice"});
  expect_parts(fault({{"a", DType::mxfp4, {32}}}), {folder.path().string(), "tensor a: type MXFP4"});
  expect_parts(fault({{"a", DType::u8, {-3}}}), {folder.path().string(), "tensor a: shape [-3]"});
  expect_parts(fault({{"__metadata__", DType::u8, {3}}}), {"tensor __metadata__"});
  expect_parts(fault({{"\xff", DType::u8, {3}}}), {folder.path().string(), "UTF-8"});

  SafetensorsWriter writer(folder.path(), {{"a", DType::u8, {3}}, {"b", DType::u8, {2}}});
  expect_parts(error_of([&] { writer.append("b", as_bytes("x")); }),
               {"tensor b: 1 bytes given, 3 of tensor a expected"});
  expect_parts(error_of([&] { writer.append("a", as_bytes("wxyz")); }), {"4 bytes given, 3 of tensor a expected"});
  writer.append("a", as_bytes("xyz"));
  writer.append("b", as_bytes("yz"));
  expect_parts(error_of([&] { writer.append("b", as_bytes("x")); }), {"tensor b: 1 bytes given, none expected"});
  writer.finish();
  expect_parts(fault({}), {folder.path().string(), "model.safetensors", "another folder"});
}

TEST(SafetensorsWriter, AFolderThatCannotBeIsAnInputError) {
  const TemporaryFolder folder;
  const auto file = folder.write("file", "");
  expect_parts(error_of([&] { SafetensorsWriter(file / "sub", {}); }), {file.string(), "Not a directory"});
}

// A limit on file sizes stands in for a full disk: the same call fails, in the same way.
TEST(SafetensorsWriter, AFullDiskIsARunErrorAndLeavesNothing) {
  const TemporaryFolder folder;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto message = error_of<RunError>([&] {
    SafetensorsWriter writer(folder.path(), {{"a", DType::u8, {8192}}});
    writer.append("a", pattern(8192, 1));
  });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  expect_parts(message, {(folder.path() / "model.safetensors").string(), "bytes cannot be written", "File too large"});
  EXPECT_EQ(folder.num_files(), 0u);
}

TEST(SafetensorsWriter, WhatTheDiskHasNoRoomForIsNotBegun) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "new" / "model";
  const int64_t mb = int64_t{1} << 40;  // an exabyte
  expect_parts(error_of([&] { SafetensorsWriter(path, {{"x", DType::u8, {mb, int64_t{1} << 20}}}); }),
               {path.string(), fmt::format("{} MB", mb), "on the disk, which has", "MB left"});
  EXPECT_EQ(folder.num_files(), 0u);
}

}  // namespace
}  // namespace nibble
