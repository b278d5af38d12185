// Experts in every layout that Hugging Face folders have, with a value for each place that can be got wrong.
#include <gtest/gtest.h>

#include "formats/bf16.h"
#include "memory_checkpoint.h"

namespace nibble {
namespace {

using nlohmann::json;

MatrixRequest experts(const std::string& projection, int64_t E, int64_t N, int64_t K) {
  return {.name = {"mlp.experts.*." + projection, ""}, .E = E, .N = N, .K = K, .is_experts = true};
}

VectorRequest biases(const std::string& projection, int64_t E, int64_t size) {
  return {.name = {"mlp.experts.*." + projection + ".bias", ""}, .size = size, .E = E, .is_experts = true};
}

// first, first + 1, … as BF16, which holds them exactly up to 256.
Bytes counting(int first, int count) {
  Bytes bytes;
  for (int i = 0; i < count; i++) {
    const uint16_t bits = float_to_bf16(static_cast<float>(first + i));
    bytes.insert(bytes.end(), {static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8)});
  }
  return bytes;
}

// 16 bytes, 32 E2M1 codes, all of them `code`; E2M1 codes 1 to 7 are 0.5, 1, 1.5, 2, 3, 4, 6.
Bytes row_of(uint32_t code) { return Bytes(16, static_cast<uint8_t>(code * 0x11)); }

Bytes rows_of(std::initializer_list<uint32_t> codes) {
  Bytes bytes;
  for (uint32_t code : codes) {
    const Bytes row = row_of(code);
    bytes.insert(bytes.end(), row.begin(), row.end());
  }
  return bytes;
}

// The first value of each row: rows are uniform where these tests use it.
std::vector<float> rows_decoded(const CanonicalWeight& weight) {
  const std::vector<float> all = decoded(weight);
  std::vector<float> first;
  for (size_t i = 0; i < all.size(); i += static_cast<size_t>(weight.K)) first.push_back(all[i]);
  return first;
}

MemoryCheckpoint plain_one_by_one() {
  MemoryCheckpoint file(Container::safetensors);
  for (int e = 0; e < 12; e++)  // more than ten: as text, 10 comes before 2
    file.add(fmt::format("mlp.experts.{}.gate_proj.weight", e), DType::bf16, {2, 3}, counting(6 * e, 6));
  return file;
}

TEST(ImportExperts, OneByOneAreGatheredInTheOrderOfTheirNumbers) {
  const MemoryCheckpoint file = plain_one_by_one();
  const auto source = file.open();
  const MatrixInfo info = source->describe(experts("gate_proj", 12, 2, 3));
  EXPECT_EQ(info.source, "BF16");
  EXPECT_EQ(info.bytes, 12 * 2 * 3 * 2);
  const CanonicalWeight weight = source->read(experts("gate_proj", 12, 2, 3));
  std::vector<float> expected;
  for (int i = 0; i < 72; i++) expected.push_back(static_cast<float>(i));
  EXPECT_EQ(decoded(weight), expected);
  EXPECT_EQ(weight.E, 12);
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(ImportExperts, AreAsManyAsTheConfigurationSays) {
  MemoryCheckpoint file = plain_one_by_one();
  EXPECT_EQ(
      error_of(file, experts("gate_proj", 11, 2, 3)),
      "model: tensor mlp.experts.11.gate_proj.weight: is of an expert number 11, but the configuration has only 11 "
      "experts");
  EXPECT_NE(error_of(file, experts("gate_proj", 13, 2, 3)).find("there is no tensor mlp.experts.12.gate_proj.weight"),
            std::string::npos);
  file.checkpoint->tensors.erase("mlp.experts.7.gate_proj.weight");
  EXPECT_NE(error_of(file, experts("gate_proj", 12, 2, 3)).find("there is no tensor mlp.experts.7.gate_proj.weight"),
            std::string::npos);
  EXPECT_NE(error_of(file, experts("up_proj", 12, 2, 3))
                .find("there is no tensor mlp.experts.0.up_proj.weight, and no stacked mlp.switch_mlp.up_proj, "
                      "mlp.experts.up_proj or mlp.experts.gate_up_proj"),
            std::string::npos);
}

TEST(ImportExperts, OneExpertIsStillOneOfThem) {
  MemoryCheckpoint file(Container::safetensors);
  file.add("mlp.experts.0.down_proj.weight", DType::bf16, {1, 2}, counting(5, 2))
      .add("mlp.experts.gate_up_proj", DType::bf16, {1, 2, 2}, counting(1, 4));
  EXPECT_EQ(decoded(file.open()->read(experts("down_proj", 1, 1, 2))), (std::vector<float>{5, 6}));
  EXPECT_EQ(decoded(file.open()->read(experts("up_proj", 1, 1, 2))), (std::vector<float>{3, 4}));
}

TEST(ImportExperts, OfOneLayerHaveOneFormat) {
  MemoryCheckpoint file = plain_one_by_one();
  file.add("mlp.experts.3.gate_proj.weight", DType::f16, {2, 3}, Bytes(12));
  EXPECT_NE(error_of(file, experts("gate_proj", 12, 2, 3))
                .find("mlp.experts.3.gate_proj.weight: is F16, but expert 0 is BF16"),
            std::string::npos);
  file.add("mlp.experts.3.gate_proj.weight", DType::bf16, {3, 2}, Bytes(12));
  EXPECT_NE(error_of(file, experts("gate_proj", 12, 2, 3)).find("shape [3, 2] in the file, [2, 3] expected"),
            std::string::npos);
}

TEST(ImportExperts, EachKeepsItsOwnTensorScale) {
  MemoryCheckpoint file(Container::safetensors,
                        {{"quantization_config", {{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}}}});
  for (int e = 0; e < 3; e++) {
    const std::string at = fmt::format("mlp.experts.{}.up_proj.", e);
    file.add(at + "weight", DType::u8, {1, 16}, row_of(2))
        .add(at + "weight_scale", DType::f8_e4m3, {1, 2}, {0x38, 0x40})  // 1, 2
        .add(at + "weight_scale_2", DType::f32, {}, bytes_of({0.25f * static_cast<float>(e + 1)}))
        .add(at + "input_scale", DType::f32, {}, bytes_of({9.0f}));
  }
  const auto source = file.open();
  const CanonicalWeight weight = source->read(experts("up_proj", 3, 1, 32));
  EXPECT_EQ(weight.parts[0].tensor_scale, (std::vector<float>{0.25f, 0.5f, 0.75f}));
  EXPECT_EQ(rows_decoded(weight), (std::vector<float>{0.25f, 0.5f, 0.75f}));
  EXPECT_EQ(decoded(weight)[95], 1.5f);
  EXPECT_TRUE(source->unknown_tensors().empty());
  file.add("mlp.experts.1.up_proj.weight_scale", DType::f8_e4m3, {1, 2}, {0x38, 0x7F});
  EXPECT_NE(
      error_of(file, experts("up_proj", 3, 1, 32)).find("tensor mlp.experts.1.up_proj.weight_scale: scale 1 is 0x7f"),
      std::string::npos);
}

TEST(ImportExperts, MixtralCallsThemByNumber) {
  MemoryCheckpoint file(Container::safetensors);
  for (int e = 0; e < 2; e++)
    for (const char* name : {"w1", "w2", "w3"})
      file.add(fmt::format("moe.experts.{}.{}.weight", e, name), DType::bf16, {1, 1},
               counting(10 * (name[1] - '0') + e, 1));
  const auto source = file.open();
  for (int w = 1; w <= 3; w++)
    EXPECT_EQ(decoded(source->read(
                  {.name = {fmt::format("moe.experts.*.w{}", w), ""}, .E = 2, .N = 1, .K = 1, .is_experts = true})),
              (std::vector<float>{10.0f * w, 10.0f * w + 1.0f}));
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(ImportExperts, MlxStacksThemUnderTwoNames) {
  for (const std::string at : {"mlp.switch_mlp.", "mlp.experts."}) {
    MemoryCheckpoint file(Container::safetensors,
                          {{"quantization", {{"mode", "mxfp4"}, {"bits", 4}, {"group_size", 32}}}});
    file.add(at + "up_proj.weight", DType::u32, {2, 1, 4}, rows_of({1, 7}))
        .add(at + "up_proj.scales", DType::u8, {2, 1, 1}, {128, 127})
        .add(at + "up_proj.bias", DType::bf16, {2, 1}, counting(3, 2));
    const auto source = file.open();
    EXPECT_EQ(rows_decoded(source->read(experts("up_proj", 2, 1, 32))), (std::vector<float>{1, 6})) << at;
    EXPECT_TRUE(source->has_vector(biases("up_proj", 2, 1).name));
    EXPECT_FALSE(source->has_vector(biases("gate_proj", 2, 1).name));
    EXPECT_EQ(source->read_vector(biases("up_proj", 2, 1)), (std::vector<float>{3, 4}));
    EXPECT_TRUE(source->unknown_tensors().empty());
    EXPECT_NE(error_of(file, experts("up_proj", 3, 1, 32)).find("shape [2, 1, 4] in the file, [3, 1, 4] expected"),
              std::string::npos);
  }
  // Mixtral's w1, w3 and w2 have the common names there.
  MemoryCheckpoint file(Container::safetensors);
  file.add("moe.switch_mlp.gate_proj.weight", DType::bf16, {2, 1, 1}, counting(1, 2))
      .add("moe.switch_mlp.up_proj.weight", DType::bf16, {2, 1, 1}, counting(3, 2))
      .add("moe.switch_mlp.down_proj.weight", DType::bf16, {2, 1, 1}, counting(5, 2));
  const auto first = [&](const char* name) {
    return decoded(file.open()->read({.name = {name, ""}, .E = 2, .N = 1, .K = 1, .is_experts = true}))[0];
  };
  EXPECT_EQ(first("moe.experts.*.w1"), 1.0f);
  EXPECT_EQ(first("moe.experts.*.w3"), 3.0f);
  EXPECT_EQ(first("moe.experts.*.w2"), 5.0f);
}

MemoryCheckpoint gpt_oss_file() {
  MemoryCheckpoint file(
      Container::safetensors,
      {{"quantization_config", {{"quant_method", "mxfp4"}, {"modules_to_not_convert", {"lm_head"}}}}});
  file.add("mlp.experts.gate_up_proj_blocks", DType::u8, {2, 4, 1, 16}, rows_of({1, 2, 3, 4, 5, 6, 7, 8 + 1}))
      .add("mlp.experts.gate_up_proj_scales", DType::u8, {2, 4, 1}, {127, 128, 127, 128, 127, 128, 127, 126})
      .add("mlp.experts.gate_up_proj_bias", DType::bf16, {2, 4}, counting(0, 8))
      .add("mlp.experts.down_proj_blocks", DType::u8, {2, 1, 1, 16}, rows_of({2, 4}))
      .add("mlp.experts.down_proj_scales", DType::u8, {2, 1, 1}, {127, 0})
      .add("mlp.experts.down_proj_bias", DType::bf16, {2, 1}, counting(20, 2));
  return file;
}

TEST(ImportExperts, GptOssInterleavesGateAndUp) {
  const MemoryCheckpoint file = gpt_oss_file();
  const auto source = file.open();
  EXPECT_EQ(source->describe(experts("gate_proj", 2, 2, 32)).source, "U8 blocks + U8 scales (gpt-oss MXFP4)");
  EXPECT_EQ(source->describe(experts("gate_proj", 2, 2, 32)).bytes, 2 * 2 * 17);
  EXPECT_EQ(rows_decoded(source->read(experts("gate_proj", 2, 2, 32))), (std::vector<float>{0.5f, 1.5f, 3, 6}));
  EXPECT_EQ(rows_decoded(source->read(experts("up_proj", 2, 2, 32))), (std::vector<float>{2, 4, 8, -0.25f}));
  EXPECT_EQ(rows_decoded(source->read(experts("down_proj", 2, 1, 32))), (std::vector<float>{1, 0x1p-126f}));
  EXPECT_EQ(source->read_vector(biases("gate_proj", 2, 2)), (std::vector<float>{0, 2, 4, 6}));
  EXPECT_EQ(source->read_vector(biases("up_proj", 2, 2)), (std::vector<float>{1, 3, 5, 7}));
  EXPECT_EQ(source->read_vector(biases("down_proj", 2, 1)), (std::vector<float>{20, 21}));
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(ImportExperts, GptOssFaultsNameTheTensor) {
  MemoryCheckpoint file = gpt_oss_file();
  file.add("mlp.experts.gate_up_proj_scales", DType::u8, {2, 4, 1}, {127, 255, 127, 128, 127, 128, 127, 126});
  EXPECT_EQ(error_of(file, experts("gate_proj", 2, 2, 32)), "");
  EXPECT_NE(error_of(file, experts("up_proj", 2, 2, 32)).find("mlp.experts.gate_up_proj_scales: scale 0 is 0xff"),
            std::string::npos);
  EXPECT_NE(error_of(file, experts("down_proj", 3, 1, 32))
                .find("down_proj_blocks: shape [2, 1, 1, 16] in the file, [3, 1, 1, 16] expected"),
            std::string::npos);
  EXPECT_NE(input_error([&] {
              file.open()->check_vector(biases("up_proj", 2, 3));
            }).find("gate_up_proj_bias: shape [2, 4] in the file, [2, 6] expected"),
            std::string::npos);
  file.checkpoint->config.erase("quantization_config");
  EXPECT_NE(error_of(file, experts("down_proj", 2, 1, 32)).find("of which model/config.json says nothing"),
            std::string::npos);
}

TEST(ImportExperts, FusedPlainWeightsAreGateAboveUp) {
  MemoryCheckpoint file(Container::safetensors);
  file.add("mlp.experts.gate_up_proj", DType::bf16, {2, 4, 3}, counting(0, 24))
      .add("mlp.experts.down_proj", DType::bf16, {2, 3, 2}, counting(50, 12));
  const auto source = file.open();
  EXPECT_EQ(decoded(source->read(experts("gate_proj", 2, 2, 3))),
            (std::vector<float>{0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(decoded(source->read(experts("up_proj", 2, 2, 3))),
            (std::vector<float>{6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23}));
  const CanonicalWeight down = source->read(experts("down_proj", 2, 3, 2));
  EXPECT_EQ(decoded(down)[11], 61.0f);
  EXPECT_EQ(down.codes.data(), file.checkpoint->find("mlp.experts.down_proj")->bytes.data());
  EXPECT_TRUE(source->unknown_tensors().empty());
  EXPECT_NE(error_of(file, experts("down_proj", 2, 2, 3)).find("shape [2, 3, 2] in the file, [2, 2, 3] expected"),
            std::string::npos);
}

TEST(ImportExperts, FusedAndQuantizedOnesAreRefused) {
  for (const char* ending : {"", ".weight", ".weight_packed"}) {
    MemoryCheckpoint file(Container::safetensors);
    file.add(std::string("mlp.experts.gate_up_proj") + ending, DType::u8, {2, 4, 8}, Bytes(64));
    const std::string error = input_error([&] {
      file.open()->describe({.name = {"mlp.experts.*.gate_proj", ""}, .E = 2, .N = 2, .K = 16, .is_experts = true});
    });
    for (const std::string& part :
         {std::string("mlp.experts.gate_up_proj") + ending, std::string("both fused and quantized")})
      EXPECT_NE(error.find(part), std::string::npos) << error;
  }
}

TEST(ImportExperts, GptOssPlainWeightsAreTransposed) {
  MemoryCheckpoint file(Container::safetensors);
  file.add("mlp.experts.gate_up_proj", DType::bf16, {2, 3, 4}, counting(0, 24))  // [E, K, 2N]
      .add("mlp.experts.gate_up_proj_bias", DType::bf16, {2, 4}, counting(100, 8))
      .add("mlp.experts.down_proj", DType::bf16, {2, 2, 2}, counting(50, 8))  // square: only its bias tells
      .add("mlp.experts.down_proj_bias", DType::bf16, {2, 2}, counting(30, 4));
  const auto source = file.open();
  EXPECT_EQ(decoded(source->read(experts("gate_proj", 2, 2, 3))),
            (std::vector<float>{0, 4, 8, 2, 6, 10, 12, 16, 20, 14, 18, 22}));
  EXPECT_EQ(decoded(source->read(experts("up_proj", 2, 2, 3))),
            (std::vector<float>{1, 5, 9, 3, 7, 11, 13, 17, 21, 15, 19, 23}));
  EXPECT_EQ(decoded(source->read(experts("down_proj", 2, 2, 2))), (std::vector<float>{50, 52, 51, 53, 54, 56, 55, 57}));
  EXPECT_EQ(source->read_vector(biases("up_proj", 2, 2)), (std::vector<float>{101, 103, 105, 107}));
  EXPECT_EQ(source->read_vector(biases("down_proj", 2, 2)), (std::vector<float>{30, 31, 32, 33}));
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(ImportExperts, BiasesMayBeOneByOne) {
  MemoryCheckpoint file(Container::safetensors);
  for (int e = 0; e < 2; e++)
    file.add(fmt::format("mlp.experts.{}.up_proj.bias", e), DType::bf16, {2}, counting(10 * e, 2));
  const auto source = file.open();
  EXPECT_TRUE(source->has_vector(biases("up_proj", 2, 2).name));
  EXPECT_EQ(source->read_vector(biases("up_proj", 2, 2)), (std::vector<float>{0, 1, 10, 11}));
  EXPECT_TRUE(source->unknown_tensors().empty());
  EXPECT_NE(input_error([&] {
              source->check_vector(biases("up_proj", 3, 2));
            }).find("there is no tensor mlp.experts.2.up_proj.bias"),
            std::string::npos);
}

}  // namespace
}  // namespace nibble
