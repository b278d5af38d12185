#include "weights/quantization_config.h"

#include <algorithm>

#include "base/error.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

std::vector<ModulePattern> read_ignored(const QuantizationConfig& config, const Json& list) {
  std::vector<ModulePattern> patterns;
  for (const auto& entry : list) patterns.emplace_back(entry.get<std::string>(), config.where);
  return patterns;
}

// A number that counts bits or weights, or `fallback` without one.
int small_number(const QuantizationConfig& config, const Json& json, const char* key, int fallback) {
  if (!json.is_object() || !json.contains(key)) return fallback;
  const Json& value = json[key];
  if (!value.is_number_integer() || value < 1 || value > 1 << 20)
    throw_input_error("{}: {} is {}, a whole number from 1 to {} expected", config.where, key,
                      value.dump().substr(0, 80), 1 << 20);
  return value.get<int>();
}

void expect_group_size(const QuantizationConfig& config, const Json& weights, FormatId format) {
  const int expected = format == FormatId::nvfp4 ? Nvfp4::group_size : Mxfp4::group_size;
  const int found = small_number(config, weights, "group_size", expected);
  if (found != expected)
    throw_input_error("{}: group_size {}, {} expected for {}", config.where, found, expected,
                      format == FormatId::nvfp4 ? Nvfp4::name : Mxfp4::name);
}

void read_modelopt(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::modelopt;
  const std::string algorithm = json.value("quant_algo", "");
  if (algorithm != "NVFP4")
    throw_input_error("{}: ModelOpt's quant_algo \"{}\" is not read; NVFP4 is", config.where, algorithm);
  config.formats = {FormatId::nvfp4};
  expect_group_size(config, json, FormatId::nvfp4);
  config.ignored =
      read_ignored(config, json.contains("ignore") ? json["ignore"] : json.value("exclude_modules", Json()));
}

void read_compressed_tensors(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::compressed_tensors;
  const auto add = [&](const std::string& format, const Json& weights) {
    const bool is_nvfp4 = format == "nvfp4-pack-quantized";
    if (!is_nvfp4 && format != "mxfp4-pack-quantized")
      throw_input_error(
          "{}: the format \"{}\" of compressed-tensors is not read; nvfp4-pack-quantized and "
          "mxfp4-pack-quantized are",
          config.where, format);
    config.formats.push_back(is_nvfp4 ? FormatId::nvfp4 : FormatId::mxfp4);
    expect_group_size(config, weights, config.formats.back());
  };
  const std::string format = json.value("format", "");
  const Json groups = json.value("config_groups", Json::object());
  for (const auto& group : groups) {
    const Json own = group.value("format", Json());
    add(own.is_null() ? format : own.get<std::string>(), group.value("weights", Json()));
  }
  if (groups.empty()) add(format, Json());
  config.ignored = read_ignored(config, json.value("ignore", Json()));
}

MlxModule read_mlx_module(const QuantizationConfig& config, const Json& json, const Json& defaults) {
  if (json.is_boolean() && !json.get<bool>()) return {};
  const Json& own = json.is_object() ? json : defaults;
  const std::string mode = own.value("mode", "affine");
  const int bits = small_number(config, own, "bits", small_number(config, defaults, "bits", 4));
  const int group_size = small_number(config, own, "group_size", small_number(config, defaults, "group_size", 64));
  if (mode == "mxfp4" && bits == 4 && group_size == Mxfp4::group_size) return {.format = FormatId::mxfp4};
  if (mode == "nvfp4" && bits == 4 && group_size == Nvfp4::group_size) return {.format = FormatId::nvfp4};
  if (mode == "affine" && (bits == 4 || bits == 8) && group_size > 0 && group_size % 32 == 0)
    return {.affine = AffineCodes{bits, group_size}};
  throw_input_error(
      "{}: mode \"{}\" with {} bits and groups of {} is not read; mxfp4 (4 bits, groups of 32), nvfp4 (4, "
      "16) and affine with 4 or 8 bits and groups of whole 32s are",
      config.where, mode, bits, group_size);
}

void read_mlx(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::mlx;
  config.mlx_default = read_mlx_module(config, json, json);
  for (const auto& [name, value] : json.items())
    if (value.is_object() || value.is_boolean()) config.mlx_modules[name] = read_mlx_module(config, value, json);
}

void read_method(QuantizationConfig& config, const Json& json) {
  const std::string method = json.value("quant_method", "");
  if (method == "modelopt" || method == "modelopt_fp4") return read_modelopt(config, json);
  if (method == "compressed-tensors") return read_compressed_tensors(config, json);
  throw_input_error(
      "{}: quant_method \"{}\" is not read; modelopt, compressed-tensors and MLX's own \"quantization\" are",
      config.where, method);
}

}  // namespace

bool QuantizationConfig::ignores(const std::string& module) const {
  return std::ranges::any_of(ignored, [&](const ModulePattern& pattern) { return pattern.matches(module); });
}

MlxModule QuantizationConfig::mlx_module(const std::string& module) const {
  const auto it = mlx_modules.find(module);
  return it == mlx_modules.end() ? mlx_default : it->second;
}

QuantizationConfig read_quantization_config(const Checkpoint& checkpoint) {
  QuantizationConfig config;
  const std::string file = (checkpoint.path / "config.json").string();
  const auto find = [](const Json& json, const char* key) {
    return json.is_object() && json.contains(key) ? json[key] : Json();
  };
  // MLX writes its own key and the common one, both with the same contents.
  const Json mlx = find(checkpoint.config, "quantization"), common = find(checkpoint.config, "quantization_config");
  const Json modelopt = find(checkpoint.hf_quant_config, "quantization");
  try {
    if (!mlx.is_null()) {
      config.where = file + ": quantization";
      read_mlx(config, mlx);
    } else if (!common.is_null()) {
      config.where = file + ": quantization_config";
      read_method(config, common);
    } else if (!modelopt.is_null()) {
      config.where = (checkpoint.path / "hf_quant_config.json").string();
      read_modelopt(config, modelopt);
    } else {
      config.where = file;
    }
  } catch (const Json::exception& error) {
    throw_input_error("{}: a value has another type than expected: {}", config.where, error.what());
  }
  return config;
}

}  // namespace nibble
