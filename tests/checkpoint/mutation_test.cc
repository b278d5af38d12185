// Damaged files: whatever byte is changed or missing, a reader succeeds or throws InputError. With a sanitizer this
// also shows that nothing outside the file is read.
#include <functional>

#include "checkpoint/gguf_writer.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"

namespace nibble {
namespace {

constexpr int kChanges = 4000;

struct Outcomes {
  int read = 0, refused = 0;
};

// Each damaged file is a heap block of exactly its size, so that a read past its end is seen.
Outcomes read_damaged(const std::string& file, const std::function<void(std::span<const uint8_t>)>& read) {
  Outcomes outcomes;
  const auto try_to_read = [&](const std::string& damaged) {
    const std::vector<uint8_t> bytes(damaged.begin(), damaged.end());
    try {
      read(bytes);
      outcomes.read++;
    } catch (const InputError& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("file: ")) << error.what();
      outcomes.refused++;
    }
  };
  for (size_t size = 0; size < file.size(); size++) try_to_read(file.substr(0, size));

  uint32_t state = 1;
  const auto next = [&](size_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
  };
  constexpr uint8_t kEdges[] = {0x00, 0x01, 0x7F, 0x80, 0xFF, '"', '{', '['};
  for (int change = 0; change < kChanges; change++) {
    auto damaged = file;
    for (size_t i = 0; i <= next(3); i++) {
      auto& byte = damaged[next(damaged.size())];
      byte = static_cast<char>(next(2) == 0 ? byte ^ (1 << next(8)) : kEdges[next(std::size(kEdges))]);
    }
    try_to_read(damaged);
  }
  return outcomes;
}

TEST(DamagedFiles, Safetensors) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder.path(), {{"a", DType::f32, {2, 3}}, {"b", DType::u8, {5}}, {"c", DType::f16, {}}});
  writer.append("a", pattern(24, 1));
  writer.append("b", pattern(5, 2));
  writer.append("c", pattern(2, 3));
  writer.finish();
  const auto outcomes = read_damaged(folder.read("model.safetensors"), [](std::span<const uint8_t> bytes) {
    for (const auto& tensor : parse_safetensors(bytes, "file"))
      EXPECT_EQ(tensor.bytes.size(), static_cast<size_t>(tensor_bytes(tensor.dtype, tensor.shape, "")));
  });
  EXPECT_GT(outcomes.read, 0);
  EXPECT_GT(outcomes.refused, kChanges / 2);
}

TEST(DamagedFiles, Gguf) {
  const TemporaryFolder folder;
  const std::vector<GgufEntry> metadata = {
      {"general.architecture", std::string("llama")},
      {"llama.block_count", uint32_t{2}},
      {"tokens", GgufArray{GgufType::string, {std::string("a"), std::string("bc")}}},
      {"nested", GgufArray{GgufType::array, {GgufArray{GgufType::f32, {1.0f, 2.0f}}}}},
  };
  GgufWriter writer(folder.path() / "m", metadata, {{"a", DType::f32, {2, 3}}, {"b", DType::mxfp4, {2, 32}}});
  writer.append("a", pattern(24, 1));
  writer.append("b", pattern(34, 2));
  writer.finish();
  const auto outcomes = read_damaged(folder.read("m"), [](std::span<const uint8_t> bytes) {
    for (const auto& [name, tensor] : parse_gguf(bytes, "file").tensors)
      EXPECT_EQ(tensor.bytes.size(), static_cast<size_t>(tensor_bytes(tensor.dtype, tensor.shape, "")));
  });
  EXPECT_GT(outcomes.read, 0);
  EXPECT_GT(outcomes.refused, kChanges / 4);
}

}  // namespace
}  // namespace nibble
