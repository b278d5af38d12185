#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "memory_checkpoint.h"
#include "weights/importer_core.h"

namespace nibble {
namespace {

using nlohmann::json;

json modelopt_config() {
  return {{"num_hidden_layers", 2},
          {"num_nextn_predict_layers", 9},
          {"tie_word_embeddings", true},
          {"quantization_config",
           {{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", {"lm_head", "model.layers.1.*"}}}}};
}

json compressed_tensors_config(const std::string& format) {
  return {{"quantization_config",
           {{"quant_method", "compressed-tensors"},
            {"format", format},
            {"ignore", {"lm_head", "re:.*gate$"}},
            {"config_groups",
             {{"group_0",
               {{"weights", {{"num_bits", 4}, {"group_size", format[0] == 'n' ? 16 : 32}}}, {"format", format}}}}}}}};
}

json mlx_config(const std::string& mode, int group_size) {
  return {{"quantization",
           {{"mode", mode},
            {"bits", 4},
            {"group_size", group_size},
            {"affine", {{"mode", "affine"}, {"bits", 8}, {"group_size", 32}}},
            {"plain", false}}}};
}

// The magnitudes of E2M1 by code, doubled, as integers: independent of the decoder.
float e2m1(uint32_t code) {
  static constexpr int kDoubled[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  return (code & 8 ? -0.5f : 0.5f) * static_cast<float>(kDoubled[code & 7]);
}

// What 2 rows of 32 weights in some_bytes(32) mean, low nibble first, with a scale for each `group` weights.
std::vector<float> expected_rows(const std::vector<float>& scales, size_t group) {
  const Bytes codes = some_bytes(32);
  std::vector<float> values;
  for (size_t i = 0; i < 64; i++) values.push_back(e2m1(codes[i / 2] >> (i % 2 * 4)) * scales[i / group]);
  return values;
}

const Bytes kE4m3Scales = {0x38, 0x01, 0x7E, 0x45};  // of 2 rows of 32
const std::vector<float> kE4m3Values = {1.0f, 0x1p-9f, 448.0f, 3.25f};

MemoryCheckpoint modelopt_file() {
  MemoryCheckpoint file(Container::safetensors, modelopt_config());
  file.add("x.weight", DType::u8, {2, 16}, some_bytes(32))
      .add("x.weight_scale", DType::f8_e4m3, {2, 2}, kE4m3Scales)
      .add("x.weight_scale_2", DType::f32, {}, bytes_of({0.25f}))
      .add("x.input_scale", DType::f32, {}, bytes_of({99.0f}));
  return file;
}

TEST(ImportPlain, TakesTheFilesBytesAsTheyAre) {
  MemoryCheckpoint file(Container::safetensors);
  file.add("a.weight", DType::bf16, {2, 3}, bytes_of<uint16_t>({0x3F80, 0xC000, 0, 0x3F00, 0x7F7F, 1}))
      .add("b.weight", DType::f16, {1, 2}, bytes_of<uint16_t>({0x3C00, 0x0001}))
      .add("c.weight", DType::f32, {1, 1}, bytes_of({1.1f}));
  const auto source = file.open();
  const CanonicalWeight a = source->read(matrix("a", 2, 3));
  EXPECT_EQ(a.codes.data(), file.checkpoint->find("a.weight")->bytes.data());
  EXPECT_EQ(decoded(a), (std::vector<float>{1, -2, 0, 0.5f, 0x1.FEp127f, 0x1p-133f}));
  EXPECT_EQ(decoded(source->read(matrix("b", 1, 2))), (std::vector<float>{1, 0x1p-24f}));
  EXPECT_EQ(decoded(source->read(matrix("c", 1, 1))), (std::vector<float>{1.1f}));
  EXPECT_EQ(source->describe(matrix("a", 2, 3)).source, "BF16");
  EXPECT_EQ(source->describe(matrix("a", 2, 3)).bytes, 12);
  EXPECT_TRUE(source->has({"a", ""}));
  EXPECT_FALSE(source->has({"d", ""}));
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(ImportModelOpt, TensorScaleMultiplies) {
  const MemoryCheckpoint file = modelopt_file();
  const auto source = file.open();
  const MatrixInfo info = source->describe(matrix("x", 2, 32));
  EXPECT_EQ(info.source, "U8 + F8_E4M3 scales (ModelOpt NVFP4)");
  EXPECT_EQ(info.bytes, 32 + 4);
  EXPECT_FALSE(info.is_copied);
  const CanonicalWeight weight = source->read(matrix("x", 2, 32));
  EXPECT_EQ(weight.codes.data(), file.checkpoint->find("x.weight")->bytes.data());
  EXPECT_EQ(weight.scales.data(), file.checkpoint->find("x.weight_scale")->bytes.data());
  std::vector<float> expected = expected_rows(kE4m3Values, 16);
  for (float& value : expected) value *= 0.25f;
  EXPECT_EQ(decoded(weight), expected);
  EXPECT_TRUE(source->unknown_tensors().empty());
  EXPECT_EQ(source->unused_tensors(), (std::vector<UnusedTensor>{{"x.input_scale", kActivationScale}}));
}

TEST(ImportModelOpt, EachMatrixKeepsItsOwnTensorScale) {
  MemoryCheckpoint file = modelopt_file();
  file.add("y.weight", DType::u8, {2, 16}, some_bytes(32))
      .add("y.weight_scale", DType::f8_e4m3, {2, 2}, kE4m3Scales)
      .add("y.weight_scale_2", DType::f32, {}, bytes_of({0.25f * 2.14f}));
  const auto source = file.open();
  const std::vector<float> x = decoded(source->read(matrix("x", 2, 32))), y = decoded(source->read(matrix("y", 2, 32)));
  const std::vector<float> plain = expected_rows(kE4m3Values, 16);
  for (size_t i = 0; i < 64; i++) {
    EXPECT_EQ(x[i], plain[i] * 0.25f) << i;
    EXPECT_EQ(y[i], plain[i] * (0.25f * 2.14f)) << i;
  }
}

TEST(ImportModelOpt, ConfigurationMayBeInItsOwnFile) {
  MemoryCheckpoint file = modelopt_file();
  file.checkpoint->config.erase("quantization_config");
  EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("of which model/config.json says nothing"), std::string::npos);
  file.checkpoint->hf_quant_config = {
      {"producer", {{"name", "modelopt"}}},
      {"quantization", {{"quant_algo", "NVFP4"}, {"group_size", 16}, {"exclude_modules", {"lm_head"}}}}};
  EXPECT_EQ(error_of(file, matrix("x", 2, 32)), "");
  file.checkpoint->hf_quant_config["quantization"]["exclude_modules"] = {"x*"};
  EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("hf_quant_config.json says that this module is not quantized"),
            std::string::npos);
}

TEST(ImportCompressedTensors, TensorScaleDivides) {
  MemoryCheckpoint file(Container::safetensors, compressed_tensors_config("nvfp4-pack-quantized"));
  file.add("x.weight_packed", DType::u8, {2, 16}, some_bytes(32))
      .add("x.weight_scale", DType::f8_e4m3, {2, 2}, kE4m3Scales)
      .add("x.weight_global_scale", DType::f32, {1}, bytes_of({4.0f}))
      .add("x.input_global_scale", DType::f32, {1}, bytes_of({99.0f}));
  const auto source = file.open();
  EXPECT_TRUE(source->has({"x", ""}));
  std::vector<float> expected = expected_rows(kE4m3Values, 16);
  for (float& value : expected) value /= 4.0f;
  EXPECT_EQ(decoded(source->read(matrix("x", 2, 32))), expected);
  EXPECT_EQ(source->describe(matrix("x", 2, 32)).source, "U8 + F8_E4M3 scales (compressed-tensors NVFP4)");
  EXPECT_TRUE(source->unknown_tensors().empty());
  EXPECT_EQ(source->unused_tensors(), (std::vector<UnusedTensor>{{"x.input_global_scale", kActivationScale}}));

  file.add("x.weight_global_scale", DType::f32, {1}, bytes_of({0.0f}));
  EXPECT_EQ(error_of(file, matrix("x", 2, 32)),
            "model: tensor x.weight_global_scale: tensor scale 0 is 0, a positive finite number expected; the file is "
            "damaged");
}

TEST(ImportCompressedTensors, Mxfp4ScalesAreExponents) {
  MemoryCheckpoint file(Container::safetensors, compressed_tensors_config("mxfp4-pack-quantized"));
  file.add("x.weight_packed", DType::u8, {2, 16}, some_bytes(32)).add("x.weight_scale", DType::u8, {2, 1}, {130, 0});
  const CanonicalWeight weight = file.open()->read(matrix("x", 2, 32));
  EXPECT_EQ(weight.format, FormatId::mxfp4);
  EXPECT_EQ(decoded(weight), expected_rows({8.0f, 0x1p-127f}, 32));

  file.add("x.weight_scale", DType::u8, {2, 1}, {130, 255});
  EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("model: tensor x.weight_scale: scale 1 is 0xff"),
            std::string::npos);
}

TEST(ImportCompressedTensors, IgnoredModulesArePlain) {
  MemoryCheckpoint file(Container::safetensors, compressed_tensors_config("mxfp4-pack-quantized"));
  for (const std::string name : {"lm_head", "model.layers.0.mlp.gate", "model.layers.0.mlp.gate_proj"}) {
    file.add(name + ".weight_packed", DType::u8, {2, 16}, some_bytes(32))
        .add(name + ".weight_scale", DType::u8, {2, 1}, {130, 0});
    const bool is_ignored = name != "model.layers.0.mlp.gate_proj";
    EXPECT_EQ(error_of(file, matrix(name, 2, 32)).find("says that this module is not quantized") != std::string::npos,
              is_ignored)
        << name;
  }
  file.add("embed.weight", DType::bf16, {1, 1}, {0, 0});
  EXPECT_EQ(error_of(file, matrix("embed", 1, 1)), "");
}

TEST(ImportMlx, Mxfp4AndNvfp4) {
  MemoryCheckpoint mxfp4(Container::safetensors, mlx_config("mxfp4", 32));
  mxfp4.add("x.weight", DType::u32, {2, 4}, some_bytes(32)).add("x.scales", DType::u8, {2, 1}, {130, 127});
  EXPECT_EQ(decoded(mxfp4.open()->read(matrix("x", 2, 32))), expected_rows({8.0f, 1.0f}, 32));
  EXPECT_EQ(mxfp4.open()->describe(matrix("x", 2, 32)).source, "U32 + U8 scales (MLX MXFP4)");

  MemoryCheckpoint nvfp4(Container::safetensors, mlx_config("nvfp4", 16));
  nvfp4.add("x.weight", DType::u32, {2, 4}, some_bytes(32)).add("x.scales", DType::u8, {2, 2}, kE4m3Scales);
  EXPECT_EQ(decoded(nvfp4.open()->read(matrix("x", 2, 32))), expected_rows(kE4m3Values, 16));
}

TEST(ImportMlx, ExpertsAreStacked) {
  MemoryCheckpoint file(Container::safetensors, mlx_config("mxfp4", 32));
  file.add("x.weight", DType::u32, {2, 1, 4}, some_bytes(32)).add("x.scales", DType::u8, {2, 1, 1}, {130, 127});
  const CanonicalWeight weight = file.open()->read({.name = {"x", ""}, .E = 2, .N = 1, .K = 32});
  EXPECT_EQ(decoded(weight), expected_rows({8.0f, 1.0f}, 32));
  EXPECT_EQ(weight.parts[0].tensor_scale, (std::vector<float>{1.0f, 1.0f}));
  EXPECT_NE(error_of(file, matrix("x", 1, 32)).find("shape [2, 1, 4] in the file, [1, 4] expected"), std::string::npos);
}

TEST(ImportMlx, AModuleThatIsNotQuantizedHasNoScales) {
  MemoryCheckpoint file(Container::safetensors, mlx_config("mxfp4", 32));
  file.add("plain.weight", DType::u32, {2, 4}, some_bytes(32)).add("plain.scales", DType::u8, {2, 1}, {130, 127});
  EXPECT_NE(error_of(file, matrix("plain", 2, 32)).find("quantization says that this module is not quantized"),
            std::string::npos);
}

TEST(ImportSafetensors, FaultsNameFileTensorAndBothValues) {
  EXPECT_EQ(error_of(modelopt_file(), matrix("y", 2, 32)),
            "model: there is no tensor y.weight; the checkpoint is incomplete, or of another model than its "
            "configuration says");
  EXPECT_EQ(error_of(modelopt_file(), matrix("x", 2, 64)),
            "model: tensor x.weight: shape [2, 16] in the file, [2, 32] expected; the tensors do not fit the "
            "configuration");
  EXPECT_EQ(
      error_of(modelopt_file(), matrix("x", 2, 40)),
      "model: tensor x.weight: rows of 40 weights, a multiple of 16 expected: a scale belongs to 16 weights of one "
      "row");

  MemoryCheckpoint scales = modelopt_file();
  scales.add("x.weight_scale", DType::f8_e4m3, {2, 1}, {0x38, 0x38});
  EXPECT_NE(error_of(scales, matrix("x", 2, 32)).find("x.weight_scale: shape [2, 1] in the file, [2, 2] expected"),
            std::string::npos);
  scales.add("x.weight_scale", DType::f8_e4m3, {2, 2}, {0x38, 0x38, 0xFF, 0x38});
  EXPECT_NE(error_of(scales, matrix("x", 2, 32)).find("x.weight_scale: scale 2 is 0xff"), std::string::npos);
  scales.add("x.weight_scale", DType::f32, {}, bytes_of({1.0f}));
  EXPECT_EQ(error_of(scales, matrix("x", 2, 32)),
            "model: tensor x.weight_scale: type F32 in the file is not read here, F8_E4M3 expected");
  scales.checkpoint->tensors.erase("x.weight_scale");
  EXPECT_EQ(
      error_of(scales, matrix("x", 2, 32)),
      "model: tensor x.weight: type U8 in the file, but no scales beside it: x.weight_scale (ModelOpt) or x.scales "
      "(MLX) expected");

  for (float bad : {-1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    MemoryCheckpoint file = modelopt_file();
    file.add("x.weight_scale_2", DType::f32, {}, bytes_of({bad}));
    EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("x.weight_scale_2: tensor scale 0 is"), std::string::npos) << bad;
  }
  MemoryCheckpoint file = modelopt_file();
  file.checkpoint->tensors.erase("x.weight_scale_2");
  EXPECT_NE(error_of(file, matrix("x", 2, 32)).find("there is no tensor x.weight_scale_2"), std::string::npos);
  file.add("i.weight", DType::i32, {1, 1}, {0, 0, 0, 0});
  EXPECT_EQ(error_of(file, matrix("i", 1, 1)),
            "model: tensor i.weight: type I32 in the file is not read here, F32 or F16 or BF16 expected");
}

TEST(ImportSafetensors, Vectors) {
  MemoryCheckpoint file(Container::safetensors);
  file.add("a", DType::bf16, {2}, bytes_of<uint16_t>({0x3F80, 0xC000}))
      .add("b", DType::f16, {2}, bytes_of<uint16_t>({0x3C00, 0x0001}))
      .add("c", DType::f32, {2}, bytes_of({1.1f, std::numeric_limits<float>::infinity()}))
      .add("d", DType::u8, {2}, {0, 0});
  const auto source = file.open();
  EXPECT_EQ(source->read_vector({.name = {"a", ""}, .size = 2}), (std::vector<float>{1, -2}));
  EXPECT_EQ(source->read_vector({.name = {"b", ""}, .size = 2}), (std::vector<float>{1, 0x1p-24f}));
  EXPECT_TRUE(source->has_vector({"a", ""}));
  EXPECT_FALSE(source->has_vector({"e", ""}));
  EXPECT_EQ(input_error([&] { source->read_vector({.name = {"c", ""}, .size = 2}); }),
            "model: tensor c: element 1 is inf, a finite number expected; the file is damaged");
  EXPECT_EQ(input_error([&] { source->check_vector({.name = {"a", ""}, .size = 3}); }),
            "model: tensor a: shape [2] in the file, [3] expected; the tensors do not fit the configuration");
  EXPECT_NE(input_error([&] { source->check_vector({.name = {"d", ""}, .size = 2}); }), "");
  EXPECT_NE(input_error([&] { source->check_vector({.name = {"e", ""}, .size = 2}); }), "");
}

TEST(ImportSafetensors, TellsUnknownTensorsFromUnusedOnes) {
  MemoryCheckpoint file = modelopt_file();
  const Bytes nothing;
  for (const char* name : {"model.layers.2.eh_proj.weight", "model.layers.10.mlp.up_proj.weight", "lm_head.weight",
                           "model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.self_attn.k_proj.k_scale"})
    file.add(name, DType::f32, {0}, nothing);
  for (const char* name : {"model.layers.1.mlp.extra.weight", "model.layers.11.mlp.up_proj.weight", "model.extra"})
    file.add(name, DType::f32, {0}, nothing);
  const auto source = file.open();
  source->describe(matrix("x", 2, 32));
  EXPECT_EQ(source->unknown_tensors(), (std::vector<std::string>{"model.extra", "model.layers.1.mlp.extra.weight",
                                                                 "model.layers.11.mlp.up_proj.weight"}));
  EXPECT_EQ(source->unused_tensors(),
            (std::vector<UnusedTensor>{
                {"lm_head.weight", "output matrix, tied to the embedding"},
                {"model.layers.0.self_attn.k_proj.k_scale", "scale of an 8-bit KV cache, which is not used here"},
                {"model.layers.0.self_attn.rotary_emb.inv_freq", "table of the rotation, computed anew"},
                {"model.layers.10.mlp.up_proj.weight", kPredictionLayer},
                {"model.layers.2.eh_proj.weight", kPredictionLayer},
                {"x.input_scale", kActivationScale}}));
  EXPECT_EQ(source->tensors_of(matrix("x", 2, 32)),
            (std::vector<std::string>{"x.weight", "x.weight_scale", "x.weight_scale_2"}));
}

TEST(ImportSafetensors, LayersBeyondTheModelsAreUnknownUnlessTheConfigurationSaysThatTheyPredict) {
  for (const json& num_predicting : {json(), json(0), json(-1), json("1")}) {
    json config = {{"num_hidden_layers", 2}};
    if (!num_predicting.is_null()) config["num_nextn_predict_layers"] = num_predicting;
    MemoryCheckpoint file(Container::safetensors, config);
    file.add("model.layers.2.mlp.up_proj.weight", DType::f32, {0}, {});
    const auto source = file.open();
    EXPECT_EQ(source->unknown_tensors(), std::vector<std::string>{"model.layers.2.mlp.up_proj.weight"});
    EXPECT_TRUE(source->unused_tensors().empty());
  }
}

}  // namespace
}  // namespace nibble
