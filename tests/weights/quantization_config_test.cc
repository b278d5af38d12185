// What configurations say of modules, and what is refused in them.
#include "weights/quantization_config.h"

#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

using nlohmann::json;

QuantizationConfig read(const json& quantization_config) {
  MemoryCheckpoint file(Container::safetensors, {{"quantization_config", quantization_config}});
  return read_quantization_config(*file.checkpoint);
}

QuantizationConfig read_mlx(const json& quantization) {
  MemoryCheckpoint file(Container::safetensors, {{"quantization", quantization}});
  return read_quantization_config(*file.checkpoint);
}

// Without the place in front, which is the same for all.
std::string error(const json& quantization_config) {
  const std::string text = input_error([&] { read(quantization_config); });
  const std::string place = "model/config.json: quantization_config: ";
  return text.starts_with(place) ? text.substr(place.size()) : text;
}

std::string scheme(const QuantizationConfig& config, const std::string& module) {
  return scheme_text(config.scheme_of(module));
}

json group(const json& targets, const std::string& format, const json& weights) {
  return {{"targets", targets}, {"format", format}, {"weights", weights}};
}

const json kNvfp4 = {{"num_bits", 4}, {"type", "float"}, {"group_size", 16}, {"strategy", "tensor_group"}};
const json kMxfp4 = {{"num_bits", 4}, {"type", "float"}, {"group_size", 32}, {"strategy", "group"}};

json fp8(const std::string& strategy) {
  return {{"num_bits", 8}, {"type", "float"}, {"strategy", strategy}, {"symmetric", true}, {"group_size", nullptr}};
}

json compressed_tensors(const json& groups, const json& ignore = json::array()) {
  return {{"quant_method", "compressed-tensors"},
          {"format", "mixed-precision"},
          {"config_groups", groups},
          {"ignore", ignore}};
}

TEST(CompressedTensorsConfig, ANameGoesBeforeAPatternAndAPatternBeforeAClass) {
  const QuantizationConfig config = read(compressed_tensors(
      {{"group_0", group({"Linear"}, "nvfp4-pack-quantized", kNvfp4)},
       {"group_1", group({"re:.*self_attn\\.[qkv]_proj$"}, "float-quantized", fp8("channel"))},
       {"group_2", group({"model.layers.0.self_attn.q_proj"}, "mxfp4-pack-quantized", kMxfp4)},
       {"group_3", group({"re:.*down_proj", "model.layers.*.o_proj"}, "float-quantized", fp8("tensor"))}},
      {"lm_head", "re:.*mlp\\.gate$", "model.layers.1.*", "model.layers.2.mlp"}));
  EXPECT_EQ(scheme(config, "model.layers.0.mlp.up_proj"), "NVFP4");
  EXPECT_EQ(scheme(config, "model.layers.0.self_attn.q_proj"), "MXFP4");
  EXPECT_EQ(scheme(config, "model.layers.0.self_attn.k_proj"), "FP8 with a scale for each row");
  EXPECT_EQ(scheme(config, "model.layers.0.mlp.down_proj"), "FP8 with a scale for all weights");
  EXPECT_EQ(scheme(config, "model.layers.3.self_attn.o_proj"), "FP8 with a scale for all weights");
  for (const char* ignored :
       {"lm_head", "model.layers.0.mlp.gate", "model.layers.1.self_attn.q_proj", "model.layers.2.mlp.up_proj"})
    EXPECT_EQ(scheme(config, ignored), "not quantized") << ignored;
  EXPECT_EQ(scheme(config, "model.layers.10.mlp.up_proj"), "NVFP4");  // layers.1.* is not layers.10
  EXPECT_EQ(scheme(config, "model.layers.0.mlp.gate_proj"), "NVFP4");
}

TEST(CompressedTensorsConfig, Fp8HasThreeStrategies) {
  const auto read_strategy = [](json weights) {
    return scheme(read(compressed_tensors({{"group_0", group({"Linear"}, "float-quantized", weights)}})), "x");
  };
  EXPECT_EQ(read_strategy(fp8("tensor")), "FP8 with a scale for all weights");
  EXPECT_EQ(read_strategy(fp8("channel")), "FP8 with a scale for each row");
  json block = fp8("block");
  block["block_structure"] = {128, 128};
  EXPECT_EQ(read_strategy(block), "FP8 with a scale for each 128 x 128 weights");
  block["block_structure"] = {64, 128};
  EXPECT_EQ(input_error([&] { read_strategy(block); }),
            "model/config.json: quantization_config: strategy \"block\" with block_structure [64,128] is not read for "
            "FP8; tensor, channel, and block with [128, 128] are");
}

TEST(CompressedTensorsConfig, OtherFormatsAreNamed) {
  EXPECT_EQ(error({{"quant_method", "compressed-tensors"}, {"format", "int-quantized"}}),
            "the format \"int-quantized\" of compressed-tensors is not read; nvfp4-pack-quantized, "
            "mxfp4-pack-quantized and float-quantized are");
  EXPECT_NE(
      error(compressed_tensors({{"group_0", group({"Linear"}, "pack-quantized", {{"num_bits", 4}, {"type", "int"}})}})),
      "");
  EXPECT_EQ(error(compressed_tensors(
                {{"group_0", group({"Linear"}, "nvfp4-pack-quantized", {{"num_bits", 4}, {"type", "int"}})}})),
            "4 bits of type \"int\" are not NVFP4; one of the two is wrong, or the format is not read");
  EXPECT_EQ(error(compressed_tensors({{"group_0", group({"Linear"}, "nvfp4-pack-quantized", kMxfp4)}})),
            "group_size 32, 16 expected for NVFP4");
  json asymmetric = fp8("tensor");
  asymmetric["symmetric"] = false;
  EXPECT_NE(
      error(compressed_tensors({{"group_0", group({"Linear"}, "float-quantized", asymmetric)}})).find("asymmetric FP8"),
      std::string::npos);
}

TEST(CompressedTensorsConfig, ListsWhatItDoesNotUse) {
  json groups = {{"group_0", group({"Linear"}, "nvfp4-pack-quantized", kNvfp4)}};
  groups["group_0"]["input_activations"] = {{"num_bits", 4}};
  json config = compressed_tensors(groups);
  config["kv_cache_scheme"] = {{"num_bits", 8}};
  MemoryCheckpoint file(Container::safetensors, {{"quantization_config", config}});
  EXPECT_EQ(file.open()->unused_tensors(),
            (std::vector<std::string>{"model/config.json: quantization_config: group_0.input_activations (4 bits)",
                                      "model/config.json: quantization_config: kv_cache_scheme {\"num_bits\":8}"}));
}

TEST(ModelOptConfig, MixedPrecisionListsItsLayers) {
  const json mixed = {{"quant_algo", "MIXED_PRECISION"},
                      {"kv_cache_quant_algo", "FP8"},
                      {"exclude_modules", {"lm_head", "*router*"}},
                      {"quantized_layers",
                       {{"model.layers.0.self_attn.q_proj", {{"quant_algo", "FP8"}}},
                        {"model.layers.0.mlp.up_proj", {{"quant_algo", "NVFP4"}, {"group_size", 16}}}}}};
  MemoryCheckpoint file(Container::safetensors);
  file.checkpoint->hf_quant_config = {{"quantization", mixed}};
  json in_config = mixed;
  in_config["quant_method"] = "modelopt";
  for (const QuantizationConfig& config : {read_quantization_config(*file.checkpoint), read(in_config),
                                           read({{"quant_method", "modelopt"}, {"quantization", mixed}})}) {
    EXPECT_EQ(scheme(config, "model.layers.0.self_attn.q_proj"), "FP8 with a scale for all weights");
    EXPECT_EQ(scheme(config, "model.layers.0.mlp.up_proj"), "NVFP4");
    EXPECT_EQ(scheme(config, "model.layers.0.mlp.down_proj"), "not quantized");
    EXPECT_EQ(config.unused, std::vector<std::string>{"kv_cache_quant_algo FP8"});
    EXPECT_TRUE(config.names("model.layers.0.mlp.up_proj"));
    EXPECT_FALSE(config.names("model.layers.0.mlp.down_proj"));
  }
}

TEST(ModelOptConfig, OneAlgorithmStandsForAllModules) {
  EXPECT_EQ(scheme(read({{"quant_method", "modelopt"}, {"quant_algo", "FP8"}}), "x"),
            "FP8 with a scale for all weights");
  const QuantizationConfig config = read({{"quant_method", "modelopt"},
                                          {"quant_algo", "NVFP4"},
                                          {"exclude_modules", {"*self_attn*", "lm_head", "model.layers.3*"}}});
  EXPECT_EQ(scheme(config, "model.layers.0.mlp.up_proj"), "NVFP4");
  EXPECT_EQ(scheme(config, "model.layers.0.self_attn.q_proj"), "not quantized");
  EXPECT_EQ(scheme(config, "model.layers.3.mlp.up_proj"), "not quantized");
  const QuantizationConfig groups =
      read({{"quant_method", "modelopt"},
            {"config_groups",
             {{"group_0", {{"targets", {"a", "b"}}, {"weights", {{"num_bits", 4}, {"group_size", 16}}}}},
              {"group_1", {{"targets", {"c"}}, {"weights", {{"num_bits", 8}}}}}}}});
  EXPECT_EQ(scheme(groups, "b"), "NVFP4");
  EXPECT_EQ(scheme(groups, "c"), "FP8 with a scale for all weights");
  EXPECT_EQ(scheme(groups, "d"), "not quantized");
  EXPECT_EQ(error({{"quant_method", "modelopt"}, {"quant_algo", "W4A8_AWQ"}}),
            "ModelOpt's quant_algo \"W4A8_AWQ\" is not read; NVFP4, FP8 and MIXED_PRECISION are");
  EXPECT_EQ(error({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"group_size", 32}}),
            "group_size 32, 16 expected for NVFP4");
}

TEST(Fp8Config, BlocksAre128By128) {
  EXPECT_EQ(scheme(read({{"quant_method", "fp8"}}), "x"), "FP8 with a scale for all weights");
  EXPECT_EQ(scheme(read({{"quant_method", "fp8"}, {"weight_block_size", nullptr}}), "x"),
            "FP8 with a scale for all weights");
  const QuantizationConfig blocks = read({{"quant_method", "fp8"},
                                          {"fmt", "e4m3"},
                                          {"weight_block_size", {128, 128}},
                                          {"modules_to_not_convert", {"lm_head", "model.layers.*.mlp.gate"}}});
  EXPECT_EQ(scheme(blocks, "x"), "FP8 with a scale for each 128 x 128 weights");
  EXPECT_EQ(scheme(blocks, "model.layers.4.mlp.gate"), "not quantized");
  EXPECT_EQ(error({{"quant_method", "fp8"}, {"weight_block_size", {64, 64}}}),
            "weight_block_size [64,64] is not read; [128, 128] is");
  EXPECT_EQ(error({{"quant_method", "fp8"}, {"fmt", "e5m2"}}), "FP8 weights in \"e5m2\" are not read; e4m3 is");
}

TEST(GptOssConfig, ListsWhatIsNotConverted) {
  const QuantizationConfig config =
      read({{"quant_method", "mxfp4"}, {"modules_to_not_convert", {"model.layers.*.self_attn", "lm_head"}}});
  EXPECT_EQ(scheme(config, "model.layers.3.mlp.experts.down_proj"), "MXFP4");
  EXPECT_EQ(scheme(config, "model.layers.3.self_attn.q_proj"), "not quantized");
}

TEST(MlxConfig, ModulesHaveTheirOwnOrNone) {
  const QuantizationConfig config = read_mlx({{"mode", "mxfp4"},
                                              {"bits", 4},
                                              {"group_size", 32},
                                              {"a", {{"bits", 8}, {"group_size", 64}}},
                                              {"b", {{"mode", "nvfp4"}}},
                                              {"c", false},
                                              {"d", true},
                                              {"e", {{"bits", 6}}}});
  EXPECT_EQ(scheme(config, "x"), "MXFP4");
  EXPECT_EQ(scheme(config, "a"), "8-bit affine in groups of 64");
  EXPECT_EQ(scheme(config, "b"), "NVFP4");
  EXPECT_EQ(scheme(config, "c"), "not quantized");
  EXPECT_EQ(scheme(config, "d"), "MXFP4");
  EXPECT_EQ(scheme(config, "e"), "6-bit affine in groups of 64");
  const auto mlx_error = [](const json& quantization) { return input_error([&] { read_mlx(quantization); }); };
  EXPECT_NE(mlx_error({{"mode", "mxfp8"}, {"bits", 8}, {"group_size", 32}})
                .find("quantization: mode \"mxfp8\" with 8 bits and groups of 32 is not read"),
            std::string::npos);
  EXPECT_NE(mlx_error({{"mode", "mxfp4"}, {"group_size", 64}}).find("with 4 bits and groups of 64 is not read"),
            std::string::npos);
  EXPECT_NE(mlx_error({{"bits", 7}}), "");
  EXPECT_NE(mlx_error({{"group_size", 48}}), "");
  EXPECT_NE(mlx_error({{"group_size", -32}}), "");
}

TEST(QuantizationConfig, FaultsNameTheirPlace) {
  EXPECT_EQ(error({{"quant_method", "gptq"}}),
            "quant_method \"gptq\" is not read; modelopt, compressed-tensors, fp8, fbgemm_fp8, mxfp4 (gpt-oss) and "
            "MLX's own \"quantization\" are");
  EXPECT_NE(error({{"quant_method", "modelopt"}, {"quant_algo", 4}}).find("a value has another type than expected"),
            std::string::npos);
  EXPECT_EQ(error({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", {"re:(unclosed"}}}),
            "the pattern (unclosed is not a regular expression: missing closing parenthesis at byte 9");
  EXPECT_NE(error({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", {7}}}), "");
  EXPECT_NE(error({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", 7}}), "");
  EXPECT_NE(error("text"), "");
  EXPECT_NE(error(compressed_tensors(5)), "");
  json many = json::array();
  for (int i = 0; i < 501; i++) many.push_back("*" + std::to_string(i));
  EXPECT_EQ(error({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", many}}),
            "more than 500 patterns in one list of modules");
  // Such an expression would take a backtracking matcher longer than the universe has existed.
  const QuantizationConfig hostile =
      read({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", {"re:(a+)+$"}}});
  EXPECT_NE(input_error([&] { hostile.scheme_of(std::string(100, 'a') + ".b"); }).find("cannot be matched"),
            std::string::npos);
}

}  // namespace
}  // namespace nibble
