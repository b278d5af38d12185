// FP8 weights with every kind of scale; values are computed here from the codes' definition.
#include <cmath>

#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

using nlohmann::json;

json fp8_config(bool in_blocks) {
  json config = {{"quant_method", "fp8"}};
  if (in_blocks) config["weight_block_size"] = {128, 128};
  return {{"quantization_config", config}};
}

// E4M3 by its definition, bias 7.
float e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return static_cast<float>(code & 0x80 ? -magnitude : magnitude);
}

// Bytes without pattern in which no E4M3 code is NaN.
Bytes some_codes(size_t count) {
  Bytes codes = some_bytes(count);
  for (uint8_t& code : codes)
    if ((code & 0x7F) == 0x7F) code = 0x11;
  return codes;
}

template <class ScaleOf>
std::vector<float> expected(int64_t N, int64_t K, ScaleOf&& scale_of) {
  const Bytes codes = some_codes(static_cast<size_t>(N * K));
  std::vector<float> values;
  for (int64_t n = 0; n < N; n++)
    for (int64_t k = 0; k < K; k++) values.push_back(e4m3(codes[static_cast<size_t>(n * K + k)]) * scale_of(n, k));
  return values;
}

TEST(ImportFp8, OneScaleIsATensorScale) {
  for (const char* name : {"x.weight_scale", "x.weight_scale_inv"}) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {1}, {1, 1}}) {
      MemoryCheckpoint file(Container::safetensors, fp8_config(false));
      file.add("x.weight", DType::f8_e4m3, {3, 5}, some_codes(15))
          .add(name, DType::f32, shape, bytes_of({0.375f}))
          .add("x.input_scale", DType::f32, {}, bytes_of({9.0f}));
      const auto source = file.open();
      EXPECT_EQ(source->describe(matrix("x", 3, 5)).source, "F8_E4M3 + F32 scale");
      const CanonicalWeight weight = source->read(matrix("x", 3, 5));
      EXPECT_EQ(weight.format, FormatId::fp8);
      EXPECT_EQ(weight.codes.data(), file.checkpoint->find("x.weight")->bytes.data());
      EXPECT_EQ(weight.parts[0].tensor_scale, std::vector<float>{0.375f});
      EXPECT_EQ(decoded(weight), expected(3, 5, [](auto, auto) { return 0.375f; }));
      EXPECT_TRUE(source->unknown_tensors().empty());
    }
  }
}

TEST(ImportFp8, ScalesOfRows) {
  const json config = {
      {"quantization_config",
       {{"quant_method", "compressed-tensors"},
        {"format", "float-quantized"},
        {"config_groups",
         {{"group_0",
           {{"targets", {"Linear"}}, {"weights", {{"num_bits", 8}, {"type", "float"}, {"strategy", "channel"}}}}}}}}}};
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3}, {3, 1}}) {
    MemoryCheckpoint file(Container::safetensors, config);
    file.add("x.weight", DType::f8_e4m3, {3, 130}, some_codes(390))
        .add("x.weight_scale", DType::bf16, shape, bytes_of<uint16_t>({0x3F80, 0x4000, 0x3E80}));  // 1, 2, 0.25
    const auto source = file.open();
    const MatrixInfo info = source->describe(matrix("x", 3, 130));
    EXPECT_EQ(info.source, "F8_E4M3 + BF16 scales of rows");
    EXPECT_EQ(info.bytes, 3 * (130 + 2 * 4));
    EXPECT_TRUE(info.is_copied);
    const float scales[3] = {1, 2, 0.25f};
    EXPECT_EQ(decoded(source->read(matrix("x", 3, 130))), expected(3, 130, [&](auto n, auto) { return scales[n]; }));
  }
}

TEST(ImportFp8, BlocksOf128By128MayBeCutOff) {
  MemoryCheckpoint file(Container::safetensors, fp8_config(true));
  file.add("x.weight", DType::f8_e4m3, {130, 300}, some_codes(130 * 300))
      .add("x.weight_scale_inv", DType::f32, {2, 3}, bytes_of({1.5f, 0.25f, 3.0f, 1e-3f, 7.0f, 0.0f}));
  const auto source = file.open();
  EXPECT_EQ(source->describe(matrix("x", 130, 300)).source, "F8_E4M3 + F32 scales of 128 x 128");
  const float scales[2][3] = {{1.5f, 0.25f, 3.0f}, {1e-3f, 7.0f, 0.0f}};  // a multiplier in spite of its name
  EXPECT_EQ(decoded(source->read(matrix("x", 130, 300))),
            expected(130, 300, [&](auto n, auto k) { return scales[n / 128][k / 128]; }));
  EXPECT_TRUE(source->unknown_tensors().empty());

  file.add("x.weight_scale_inv", DType::f8_e8m0, {2, 3}, {127, 128, 126, 127, 0, 130});
  const float powers[2][3] = {{1, 2, 0.5f}, {1, 0x1p-127f, 8}};
  EXPECT_EQ(decoded(file.open()->read(matrix("x", 130, 300))),
            expected(130, 300, [&](auto n, auto k) { return powers[n / 128][k / 128]; }));
}

TEST(ImportFp8, ASmallBlockIsWhatTheConfigurationSays) {
  for (bool in_blocks : {false, true}) {
    MemoryCheckpoint file(Container::safetensors, fp8_config(in_blocks));
    file.add("x.weight", DType::f8_e4m3, {2, 3}, some_codes(6))
        .add("x.weight_scale_inv", DType::f32, {1, 1}, bytes_of({0.5f}));
    EXPECT_EQ(decoded(file.open()->read(matrix("x", 2, 3))), expected(2, 3, [](auto, auto) { return 0.5f; }));
  }
}

TEST(ImportFp8, ExpertsOneByOneAndStacked) {
  MemoryCheckpoint file(Container::safetensors, fp8_config(true));
  for (int e = 0; e < 2; e++)
    file.add(fmt::format("m.experts.{}.up_proj.weight", e), DType::f8_e4m3, {1, 129}, some_codes(129))
        .add(fmt::format("m.experts.{}.up_proj.weight_scale_inv", e), DType::f32, {1, 2},
             bytes_of({1.0f + static_cast<float>(e), 0.5f}));
  file.add("m.experts.down_proj.weight", DType::f8_e4m3, {2, 1, 129}, some_codes(258))
      .add("m.experts.down_proj.weight_scale_inv", DType::f32, {2, 1, 2}, bytes_of({1.0f, 0.5f, 2.0f, 0.5f}));
  const auto source = file.open();
  const auto read = [&](const char* name) {
    return decoded(source->read({.name = {name, ""}, .E = 2, .N = 1, .K = 129, .is_experts = true}));
  };
  const auto scale = [](int64_t e, int64_t k) { return k >= 128 ? 0.5f : 1.0f + static_cast<float>(e); };
  EXPECT_EQ(read("m.experts.*.down_proj"), expected(2, 129, scale));
  std::vector<float> twice = expected(1, 129, scale);
  const std::vector<float> second = expected(1, 129, [&](auto, auto k) { return scale(1, k); });
  twice.insert(twice.end(), second.begin(), second.end());
  EXPECT_EQ(read("m.experts.*.up_proj"), twice);
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(ImportFp8, FaultsNameTheTensor) {
  MemoryCheckpoint file(Container::safetensors, fp8_config(false));
  file.add("x.weight", DType::f8_e4m3, {2, 3}, {0, 1, 2, 3, 0xFF, 5})
      .add("x.weight_scale", DType::f32, {}, bytes_of({1.0f}));
  EXPECT_EQ(error_of(file, matrix("x", 2, 3)),
            "model: tensor x.weight: code 4 is 0xff, which is NaN in FP8; the file is damaged");
  file.add("x.weight", DType::f8_e4m3, {2, 3}, Bytes(6));
  EXPECT_EQ(error_of(file, matrix("x", 2, 3)), "");
  file.add("x.weight_scale", DType::f32, {2}, bytes_of({1.0f, 2.0f}));
  EXPECT_EQ(error_of(file, matrix("x", 2, 3)),
            "model: tensor x.weight: is FP8 with a scale for each row, but model/config.json: quantization_config says "
            "that this module is FP8 with a scale for all weights; one of the two is wrong");
  file.add("x.weight_scale", DType::f32, {3}, bytes_of({1.0f, 2.0f, 3.0f}));
  EXPECT_NE(error_of(file, matrix("x", 2, 3)).find("tensor x.weight_scale: shape [3] in the file, one scale, 2 (one"),
            std::string::npos);
  for (float bad : {-1.0f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    file.add("x.weight_scale", DType::f32, {}, bytes_of({bad}));
    const std::string error = error_of(file, matrix("x", 2, 3));
    EXPECT_NE(error.find("x.weight_scale: tensor scale 0 is"), std::string::npos) << bad;
    EXPECT_NE(error.find("a finite number that is not negative expected"), std::string::npos) << error;
  }
  file.add("x.weight_scale", DType::f32, {}, bytes_of({0.0f}));  // of a matrix of zeros
  EXPECT_EQ(error_of(file, matrix("x", 2, 3)), "");
  file.checkpoint->tensors.erase("x.weight_scale");
  EXPECT_NE(error_of(file, matrix("x", 2, 3)).find("but no scale beside it: x.weight_scale or x.weight_scale_inv"),
            std::string::npos);

  MemoryCheckpoint blocks(Container::safetensors, fp8_config(true));
  blocks.add("x.weight", DType::f8_e4m3, {2, 3}, {0, 1, 2, 3, 4, 0x7F})
      .add("x.weight_scale_inv", DType::f32, {1, 1}, bytes_of({1.0f}));
  EXPECT_NE(error_of(blocks, matrix("x", 2, 3)).find("x.weight: code 5 is 0x7f"), std::string::npos);
  blocks.add("x.weight_scale_inv", DType::f8_e8m0, {1, 1}, {255});
  EXPECT_NE(error_of(blocks, matrix("x", 2, 3)).find("x.weight_scale_inv: scale 0 is nan"), std::string::npos);
  blocks.add("x.weight_scale_inv", DType::f32, {1, 1}, bytes_of({-1.0f}));
  EXPECT_NE(error_of(blocks, matrix("x", 2, 3))
                .find("x.weight_scale_inv: scale 0 is -1, a finite number that is not "
                      "negative expected"),
            std::string::npos);
  blocks.checkpoint->config = json::object();
  EXPECT_NE(error_of(blocks, matrix("x", 2, 3)).find("of which model/config.json says nothing"), std::string::npos);
}

TEST(ImportFp8, BesideFp4OfTheSameTool) {
  const json mixed = {{"quant_method", "modelopt"},
                      {"quant_algo", "MIXED_PRECISION"},
                      {"quantized_layers", {{"a", {{"quant_algo", "FP8"}}}, {"b", {{"quant_algo", "NVFP4"}}}}}};
  MemoryCheckpoint file(Container::safetensors, {{"quantization_config", mixed}});
  file.add("a.weight", DType::f8_e4m3, {1, 32}, some_codes(32))
      .add("a.weight_scale", DType::f32, {}, bytes_of({2.0f}))
      .add("b.weight", DType::u8, {1, 16}, Bytes(16, 0x22))
      .add("b.weight_scale", DType::f8_e4m3, {1, 2}, {0x38, 0x40})
      .add("b.weight_scale_2", DType::f32, {}, bytes_of({0.5f}))
      .add("c.weight", DType::bf16, {1, 1}, bytes_of<uint16_t>({0x3F80}));
  const auto source = file.open();
  EXPECT_EQ(decoded(source->read(matrix("a", 1, 32))), expected(1, 32, [](auto, auto) { return 2.0f; }));
  EXPECT_EQ(decoded(source->read(matrix("b", 1, 32)))[0], 0.5f);
  EXPECT_EQ(decoded(source->read(matrix("c", 1, 1))), std::vector<float>{1.0f});
  // Exchanged names: both opinions are told.
  file.checkpoint->config["quantization_config"]["quantized_layers"] = {{"b", {{"quant_algo", "FP8"}}},
                                                                        {"c", {{"quant_algo", "FP8"}}}};
  EXPECT_NE(error_of(file, matrix("a", 1, 32)).find("says that this module is not quantized"), std::string::npos);
  EXPECT_NE(error_of(file, matrix("b", 1, 32)).find("is NVFP4, but"), std::string::npos);
  EXPECT_EQ(error_of(file, matrix("c", 1, 1)),
            "model: tensor c.weight: is not quantized, but model/config.json: quantization_config says that this "
            "module is FP8 with a scale for all weights; one of the two is wrong");
}

TEST(ImportDeepSeekFp4, IsMxfp4InSignedBytes) {
  json config = fp8_config(true);
  config["expert_dtype"] = "fp4";
  MemoryCheckpoint file(Container::safetensors, config);
  file.add("x.weight", DType::i8, {2, 16}, Bytes(32, 0xA2)).add("x.scale", DType::f8_e8m0, {2, 1}, {128, 126});
  const std::vector<float> values = decoded(file.open()->read(matrix("x", 2, 32)));
  EXPECT_EQ(values[0], 2.0f);
  EXPECT_EQ(values[1], -2.0f);
  EXPECT_EQ(values[32], 0.5f);
  file.add("x.scale", DType::f8_e8m0, {2, 1}, {128, 255});
  EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("x.scale: scale 1 is 0xff"), std::string::npos);
  file.checkpoint->config.erase("expert_dtype");
  EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("says nothing"), std::string::npos);
}

}  // namespace
}  // namespace nibble
