#include "engine/quantize_files.h"

#include <algorithm>

#include "base/error.h"
#include "base/naming.h"
#include "base/read_file.h"
#include "engine/text.h"
#include "formats/formats.h"

namespace nibble {

namespace {

using Json = nlohmann::ordered_json;

// As NVIDIA's ModelOpt writes it for weights alone.
Json modelopt_config(const std::vector<std::string>& kept) {
  const Json weights = {{"num_bits", 4}, {"type", "float"}, {"group_size", Nvfp4::group_size}, {"dynamic", false}};
  return {{"quant_method", "modelopt"},
          {"quant_algo", "NVFP4"},
          {"ignore", kept},
          {"producer", {{"name", "nibble"}}},
          {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}}};
}

// As compressed-tensors writes its format mxfp4-pack-quantized.
Json compressed_tensors_config(const std::vector<std::string>& kept) {
  const Json weights = {
      {"num_bits", 4},       {"type", "float"},  {"symmetric", true},           {"group_size", Mxfp4::group_size},
      {"strategy", "group"}, {"dynamic", false}, {"scale_dtype", "torch.uint8"}};
  return {{"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"},
          {"format", "mxfp4-pack-quantized"},
          {"ignore", kept},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"weights", weights},
              {"input_activations", nullptr},
              {"format", "mxfp4-pack-quantized"}}}}}};
}

bool has_vector(const Model& model, std::string_view ending) {
  return std::ranges::any_of(model.weights.entries(), [&](const WeightEntry& e) { return e.name().ends_with(ending); });
}

// GGUF files may have tokens that are not UTF-8.
std::string json_text(const nlohmann::json& json, int indent) try {
  return json.dump(indent) + "\n";
} catch (const nlohmann::json::type_error& error) {
  throw_input_error("a token is not UTF-8, which no tokenizer.json can have: {}", error.what());
}

}  // namespace

Json quantized_config(const ModelFiles& files, FormatId format, const std::vector<std::string>& kept) {
  const Checkpoint& checkpoint = *files.checkpoint;
  Json config;
  if (checkpoint.container == Container::gguf) {
    config = to_hugging_face_config(files.model->config);
    // Either stands for all biases of its kind.
    config["attention_bias"] =
        has_vector(*files.model, ".self_attn.q_proj.bias") && has_vector(*files.model, ".self_attn.o_proj.bias");
    config["mlp_bias"] =
        has_vector(*files.model, ".mlp.up_proj.bias") && has_vector(*files.model, ".mlp.down_proj.bias");
    const std::vector<int32_t> stops = stop_tokens(checkpoint);
    if (!stops.empty()) config["eos_token_id"] = stops.front();
    const auto bos = checkpoint.config.find("tokenizer.ggml.bos_token_id");
    if (bos != checkpoint.config.end() && bos->is_number_integer()) config["bos_token_id"] = *bos;
  } else {
    for (const auto& [key, value] : checkpoint.config.items())
      if (key != "quantization" && key != "quantization_config") config[key] = value;
    // Layers that predict more than the next token are not read, and so not written.
    if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;
  }
  config["quantization_config"] = format == FormatId::nvfp4 ? modelopt_config(kept) : compressed_tensors_config(kept);
  return config;
}

std::vector<TensorSpec> fp4_specs(const std::string& module, FormatId format, int64_t N, int64_t K) {
  const bool is_nvfp4 = format == FormatId::nvfp4;
  std::vector<TensorSpec> specs = {
      {module + (is_nvfp4 ? ".weight" : ".weight_packed"), DType::u8, {N, K / 2}},
      {module + ".weight_scale", is_nvfp4 ? DType::f8_e4m3 : DType::u8, {N, K / group_size(format)}}};
  if (is_nvfp4) specs.push_back({module + ".weight_scale_2", DType::f32, {}});
  return specs;
}

void append_fp4(SafetensorsWriter& writer, const std::string& module, FormatId format, std::span<const uint8_t> codes,
                std::span<const uint8_t> scales, float tensor_scale) {
  const bool is_nvfp4 = format == FormatId::nvfp4;
  writer.append(module + (is_nvfp4 ? ".weight" : ".weight_packed"), codes);
  writer.append(module + ".weight_scale", scales);
  if (is_nvfp4)
    writer.append(module + ".weight_scale_2", {reinterpret_cast<const uint8_t*>(&tensor_scale), sizeof tensor_scale});
}

std::vector<TextFile> text_files(const Checkpoint& checkpoint) {
  std::vector<TextFile> files;
  if (checkpoint.container == Container::safetensors) {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                             "chat_template.jinja", "generation_config.json"})
      if (is_there(checkpoint.path / name)) files.push_back({name, read_file(checkpoint.path / name)});
    return files;
  }
  const std::optional<Tokenizer> tokenizer = find_tokenizer(checkpoint);
  if (!tokenizer) return files;
  naming(checkpoint.path.string(), [&] {
    files.push_back({"tokenizer.json", json_text(tokenizer->to_tokenizer_json(), -1)});
    files.push_back({"tokenizer_config.json", json_text(tokenizer->to_tokenizer_config(), 2)});
  });
  if (const auto source = find_chat_template(checkpoint)) files.push_back({"chat_template.jinja", *source});
  if (const auto stops = stop_tokens(checkpoint); !stops.empty())
    files.push_back({"generation_config.json", json_text({{"eos_token_id", stops}}, 2)});
  return files;
}

}  // namespace nibble
