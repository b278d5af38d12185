// MLX's affine integers of all sizes, and its tensor scale.
#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

using nlohmann::json;

MemoryCheckpoint affine_file(int bits, int group, int64_t N, int64_t K, DType type) {
  MemoryCheckpoint file(Container::safetensors, {{"quantization", {{"bits", bits}, {"group_size", group}}}});
  const auto num_groups = static_cast<size_t>(N * K / group);
  Bytes scales, biases;
  for (size_t i = 0; i < num_groups; i++) {
    // Halves of 1 to 2, the odd ones negative; biases are small whole numbers.
    const float scale = (i % 2 == 0 ? 1.0f : -1.0f) * (1.0f + static_cast<float>(i % 8) / 8), bias = -3.0f;
    const auto add = [&](Bytes& bytes, float value) {
      const uint32_t bits32 = std::bit_cast<uint32_t>(value);
      const uint16_t bf16 = static_cast<uint16_t>(bits32 >> 16);
      if (type == DType::f32)
        for (int j = 0; j < 4; j++) bytes.push_back(static_cast<uint8_t>(bits32 >> 8 * j));
      else
        bytes.insert(bytes.end(), {static_cast<uint8_t>(bf16), static_cast<uint8_t>(bf16 >> 8)});
    };
    add(scales, scale);
    add(biases, bias);
  }
  file.add("x.weight", DType::u32, {N, K * bits / 32}, some_bytes(static_cast<size_t>(N * K * bits / 8)))
      .add("x.scales", type, {N, K / group}, scales)
      .add("x.biases", type, {N, K / group}, biases);
  return file;
}

// Codes as MLX documents them: little-endian words, each code from the low end on.
std::vector<float> affine_values(int bits, int group, int64_t N, int64_t K) {
  const Bytes bytes = some_bytes(static_cast<size_t>(N * K * bits / 8));
  std::vector<float> values;
  for (int64_t i = 0; i < N * K; i++) {
    int code = 0;
    for (int bit = 0; bit < bits; bit++) {
      const auto at = static_cast<size_t>(i * bits + bit);
      code |= (bytes[at / 8] >> (at % 8) & 1) << bit;
    }
    const int64_t g = i / group;
    const float scale = (g % 2 == 0 ? 1.0f : -1.0f) * (1.0f + static_cast<float>(g % 8) / 8);
    values.push_back(static_cast<float>(code) * scale - 3.0f);
  }
  return values;
}

TEST(ImportMlxAffine, EveryWidthAndGroup) {
  struct Case {
    int bits, group;
    FormatId format;
  };
  for (const Case& c :
       {Case{4, 32, FormatId::affine4_32}, Case{4, 64, FormatId::affine4_64}, Case{4, 128, FormatId::affine4_128},
        Case{8, 32, FormatId::affine8_32}, Case{8, 64, FormatId::affine8_64}, Case{8, 128, FormatId::affine8_128},
        Case{4, 96, FormatId::affine4_32}, Case{8, 384, FormatId::affine8_32}, Case{2, 64, FormatId::affine4_64},
        Case{3, 64, FormatId::affine4_64}, Case{5, 32, FormatId::affine8_32}, Case{6, 128, FormatId::affine8_128}}) {
    for (DType type : {DType::bf16, DType::f32}) {
      SCOPED_TRACE(fmt::format("{} bits, groups of {}", c.bits, c.group));
      const MatrixRequest request{.name = {"x", ""}, .N = 3, .K = 384};
      const MemoryCheckpoint file = affine_file(c.bits, c.group, 3, 384, type);
      const auto source = file.open();
      const MatrixInfo info = source->describe(request);
      EXPECT_EQ(info.source, fmt::format("U32 + {} scales and biases (MLX affine, {} bits)", dtype_name(type), c.bits));
      EXPECT_EQ(info.format, c.format);
      const CanonicalWeight weight = source->read(request);
      EXPECT_EQ(weight.format, c.format);
      EXPECT_EQ(info.bytes, std::ssize(weight.codes) + std::ssize(weight.scales));
      EXPECT_EQ(decoded(weight), affine_values(c.bits, c.group, 3, 384));
      EXPECT_TRUE(source->unknown_tensors().empty());
    }
  }
}

TEST(ImportMlxAffine, FaultsNameTheTensor) {
  const auto error_of = [](const MemoryCheckpoint& file, int64_t K = 64) {
    return input_error([&] { file.open()->read({.name = {"x", ""}, .N = 1, .K = K}); });
  };
  MemoryCheckpoint file = affine_file(4, 64, 1, 64, DType::bf16);
  EXPECT_EQ(error_of(file), "");
  EXPECT_NE(error_of(file, 96).find("rows of 96 weights, a multiple of 64 expected"), std::string::npos);
  file.add("x.biases", DType::bf16, {1, 1}, {0x80, 0x7F});  // infinity
  EXPECT_NE(error_of(file).find("x.scales: scale 0 is"), std::string::npos);
  file.checkpoint->tensors.erase("x.biases");
  EXPECT_NE(error_of(file).find("there is no tensor x.biases"), std::string::npos);
  file = affine_file(4, 64, 1, 64, DType::bf16);
  file.checkpoint->config["quantization"]["bits"] = 8;
  EXPECT_NE(error_of(file).find("x.weight: shape [1, 8] in the file, [1, 16] expected"), std::string::npos);
  file.checkpoint->config["quantization"] = {{"mode", "mxfp4"}};
  EXPECT_NE(error_of(file).find("x.scales: type BF16 in the file is not read here, U8 expected"), std::string::npos);
  file.checkpoint->config = json::object();
  EXPECT_NE(error_of(file).find("says nothing of MLX's quantization"), std::string::npos);
}

TEST(ImportMlx, TheGlobalScaleIsTheLargestMagnitude) {
  MemoryCheckpoint file(Container::safetensors, {{"quantization", {{"mode", "nvfp4"}}}});
  file.add("x.weight", DType::u32, {1, 2}, Bytes(8, 0x77))
      .add("x.scales", DType::u8, {1, 1}, {0x7E})
      .add("x.global_scale", DType::f32, {}, bytes_of({5.0f}));
  EXPECT_NEAR(decoded(file.open()->read({.name = {"x", ""}, .N = 1, .K = 16}))[0], 5.0f, 1e-6f);  // 6 * 448
  EXPECT_TRUE(file.open()->has({"x", ""}));
}

}  // namespace
}  // namespace nibble
