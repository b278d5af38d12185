#include "weights/quantization_config.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/naming.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"

namespace nibble {
namespace {

using Json = nlohmann::json;
using Codes = Scheme::Codes;
using ScaleFor = Scheme::ScaleFor;

// Null too if the value is null, as many of these files have it.
Json find(const Json& json, const char* key) { return json.is_object() && json.contains(key) ? json[key] : Json(); }

template <class T>
T value_or(const Json& json, const char* key, const T& other) {
  const Json found = find(json, key);
  if (found.is_null()) return other;
  if constexpr (std::is_same_v<T, int>)  // which the library would make of any number
    if (!found.is_number_integer() || found < 0 || found > std::numeric_limits<int>::max())
      throw_input_error("{} is {}, a whole number expected", key, found.dump().substr(0, 80));
  return found.get<T>();
}

void add_names(ModuleNames& names, const Json& list) {
  for (const auto& entry : list) names.add(entry.get<std::string>());
}

void expect_group_size(const Json& weights, const Scheme& scheme) {
  const int expected = scheme.codes == Codes::nvfp4 ? Nvfp4::group_size : Mxfp4::group_size;
  const int found = value_or(weights, "group_size", expected);
  if (found != expected) throw_input_error("group_size {}, {} expected for {}", found, expected, scheme_text(scheme));
}

// The scales of FP8 weights as compressed-tensors describes them.
ScaleFor read_strategy(const Json& weights) {
  const auto strategy = value_or<std::string>(weights, "strategy", "tensor");
  if (strategy == "tensor") return ScaleFor::tensor;
  if (strategy == "channel") return ScaleFor::row;
  const Json block = find(weights, "block_structure");
  if (strategy == "block" && block == Json::array({128, 128})) return ScaleFor::block;
  throw_input_error("strategy \"{}\"{} is not read for FP8; tensor, channel, and block with [128, 128] are", strategy,
                    block.is_null() ? "" : " with block_structure " + block.dump());
}

// The scheme of compressed-tensors' "weights": {"num_bits", "type", "strategy", "group_size", …}. The format, where the
// file gives one, has to fit.
Scheme read_weights(const Json& weights, const std::string& format) {
  Scheme scheme;
  const int default_bits = format == "float-quantized" || format == "naive-quantized" ? 8 : 4;
  const int bits = value_or(weights, "num_bits", default_bits);
  const auto type = value_or<std::string>(weights, "type", "float");
  if (format == "nvfp4-pack-quantized")
    scheme.codes = Codes::nvfp4;
  else if (format == "mxfp4-pack-quantized")
    scheme.codes = Codes::mxfp4;
  else if (format == "float-quantized" || (format == "naive-quantized" && type == "float") ||
           (format.empty() && bits == 8))
    scheme.codes = Codes::fp8;
  else if (format.empty() && bits == 4)
    scheme.codes =
        value_or(weights, "group_size", int{Nvfp4::group_size}) == Mxfp4::group_size ? Codes::mxfp4 : Codes::nvfp4;
  else
    throw_input_error(
        "the format \"{}\" of compressed-tensors is not read; nvfp4-pack-quantized, mxfp4-pack-quantized and "
        "float-quantized are",
        format);
  if (type != "float" || bits != (scheme.codes == Codes::fp8 ? 8 : 4))
    throw_input_error("{} bits of type \"{}\" are not {}; one of the two is wrong, or the format is not read", bits,
                      type, scheme_text(scheme));
  if (!value_or(weights, "symmetric", true))
    throw_input_error("asymmetric {} (with zero points) is not read", scheme_text(scheme));
  if (scheme.codes == Codes::fp8)
    scheme.scale_for = read_strategy(weights);
  else
    expect_group_size(weights, scheme);
  return scheme;
}

// "config_groups", in which a group may have a format of its own. "Linear" is a class of modules; other classes stand
// for nothing here.
void read_groups(QuantizationConfig& config, const Json& groups, const std::string& format) {
  for (const auto& group : groups) {
    const Json weights = find(group, "weights");
    if (weights.is_null()) continue;  // activations only
    SchemeGroup& out = config.groups.emplace_back();
    out.scheme = read_weights(weights, value_or(group, "format", format));
    const Json targets = find(group, "targets");
    if (targets.is_null()) out.all_linears = true;
    for (const auto& target : targets) {
      const auto text = target.get<std::string>();
      out.all_linears |= text == "Linear";
      out.modules.add(text);
    }
  }
}

// What a file says of the cache: ours is not quantized by it.
void note_kv_cache(QuantizationConfig& config, const Json& json) {
  for (const char* key : {"kv_cache_quant_algo", "kv_cache_scheme"})
    if (const Json found = find(json, key); !found.is_null())
      config.unused.push_back(fmt::format("{} {}", key, found.is_string() ? found.get<std::string>() : found.dump()));
}

Scheme modelopt_scheme(const std::string& algorithm, const Json& json) {
  if (algorithm == "FP8") return {.codes = Codes::fp8};
  if (algorithm != "NVFP4")
    throw_input_error("ModelOpt's quant_algo \"{}\" is not read; NVFP4, FP8 and MIXED_PRECISION are", algorithm);
  const Scheme scheme{.codes = Codes::nvfp4};
  expect_group_size(json, scheme);
  return scheme;
}

void read_modelopt(QuantizationConfig& config, const Json& outer) {
  config.tool = QuantizationTool::modelopt;
  // Some files have the contents of hf_quant_config.json in config.json.
  const Json json = find(outer, "quantization").is_object() ? outer["quantization"] : outer;
  const auto algorithm = value_or<std::string>(json, "quant_algo", "");
  const Json groups = find(json, "config_groups"), layers = find(json, "quantized_layers");
  if (algorithm == "MIXED_PRECISION" && layers.is_object()) {
    for (const auto& [module, layer] : layers.items())
      config.modules[module] = modelopt_scheme(value_or<std::string>(layer, "quant_algo", ""), layer);
  } else if ((algorithm == "MIXED_PRECISION" || algorithm.empty()) && groups.is_object()) {
    read_groups(config, groups, "");
  } else {
    SchemeGroup& all = config.groups.emplace_back();
    all.all_linears = true;
    all.scheme = modelopt_scheme(algorithm, json);
    for (const auto& group : groups)
      if (const Json weights = find(group, "weights"); weights.is_object() && all.scheme.codes == Codes::nvfp4)
        expect_group_size(weights, all.scheme);
  }
  add_names(config.ignored, find(json, "ignore"));
  add_names(config.ignored, find(json, "exclude_modules"));
  note_kv_cache(config, json);
}

void read_compressed_tensors(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::compressed_tensors;
  const auto format = value_or<std::string>(json, "format", "");
  const Json groups = find(json, "config_groups");
  read_groups(config, groups, format == "mixed-precision" ? "" : format);
  if (config.groups.empty()) {
    SchemeGroup& all = config.groups.emplace_back();
    all.all_linears = true;
    all.scheme = read_weights(Json(), format);
  }
  for (const auto& [key, group] : groups.items())
    for (const char* activations : {"input_activations", "output_activations"})
      if (const Json found = find(group, activations); found.is_object())
        config.unused.push_back(fmt::format("{}.{} ({} bits)", key, activations, value_or(found, "num_bits", 0)));
  add_names(config.ignored, find(json, "ignore"));
  note_kv_cache(config, json);
}

void read_fp8(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::fp8;
  SchemeGroup& all = config.groups.emplace_back();
  all.all_linears = true;
  all.scheme = {.codes = Codes::fp8};
  const auto kind = value_or<std::string>(json, "fmt", "e4m3");
  if (kind != "e4m3") throw_input_error("FP8 weights in \"{}\" are not read; e4m3 is", kind);
  const Json block = find(json, "weight_block_size");
  if (!block.is_null()) {
    all.scheme.scale_for = ScaleFor::block;
    if (block != Json::array({128, 128}))
      throw_input_error("weight_block_size {} is not read; [128, 128] is", block.dump());
  }
  if (value_or<std::string>(json, "quant_method", "") == "fbgemm_fp8") all.scheme.scale_for = ScaleFor::row;
  add_names(config.ignored, find(json, "modules_to_not_convert"));
  add_names(config.ignored, find(json, "ignored_layers"));
}

// `mode` decides what bits and group_size are if they are not given.
Scheme read_mlx_scheme(const Json& json) {
  const auto mode = value_or<std::string>(json, "mode", "affine");
  const int bits = value_or(json, "bits", 4);
  const int default_group = mode == "affine" ? 64 : mode == "nvfp4" ? Nvfp4::group_size : Mxfp4::group_size;
  const int group = value_or(json, "group_size", default_group);
  if (mode == "mxfp4" && bits == 4 && group == Mxfp4::group_size) return {.codes = Codes::mxfp4};
  if (mode == "nvfp4" && bits == 4 && group == Nvfp4::group_size) return {.codes = Codes::nvfp4};
  if (mode == "affine" && ((bits >= 2 && bits <= 6) || bits == 8) && group > 0 && group % 32 == 0)
    return {.codes = Codes::affine, .bits = bits, .group_size = group};
  throw_input_error(
      "mode \"{}\" with {} bits and groups of {} is not read; mxfp4 (4 bits, groups of 32), nvfp4 (4, 16) and affine "
      "with 2, 3, 4, 5, 6 or 8 bits and groups of whole 32s are",
      mode, bits, group);
}

void read_mlx(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::mlx;
  SchemeGroup& all = config.groups.emplace_back();
  all.all_linears = true;
  all.scheme = read_mlx_scheme(json);
  for (const auto& [module, value] : json.items()) {
    if (value.is_object()) config.modules[module] = read_mlx_scheme(value);
    if (value.is_boolean()) config.modules[module] = value.get<bool>() ? all.scheme : Scheme{};
  }
}

void read_gpt_oss(QuantizationConfig& config, const Json& json) {
  config.tool = QuantizationTool::gpt_oss;
  SchemeGroup& all = config.groups.emplace_back();
  all.all_linears = true;
  all.scheme = {.codes = Codes::mxfp4};
  add_names(config.ignored, find(json, "modules_to_not_convert"));
}

void read_method(QuantizationConfig& config, const Json& json) {
  const auto method = value_or<std::string>(json, "quant_method", "");
  if (method == "modelopt" || method == "modelopt_fp4") return read_modelopt(config, json);
  if (method == "compressed-tensors") return read_compressed_tensors(config, json);
  if (method == "fp8" || method == "fbgemm_fp8") return read_fp8(config, json);
  if (method == "mxfp4") return read_gpt_oss(config, json);
  throw_input_error(
      "quant_method \"{}\" is not read; modelopt, compressed-tensors, fp8, fbgemm_fp8, mxfp4 (gpt-oss) and MLX's own "
      "\"quantization\" are",
      method);
}

}  // namespace

std::string scheme_text(const Scheme& scheme) {
  switch (scheme.codes) {
    case Codes::plain: return "not quantized";
    case Codes::nvfp4: return "NVFP4";
    case Codes::mxfp4: return "MXFP4";
    case Codes::fp8:
      return fmt::format("FP8 with a scale for {}", scheme.scale_for == ScaleFor::tensor ? "all weights"
                                                    : scheme.scale_for == ScaleFor::row  ? "each row"
                                                                                         : "each 128 x 128 weights");
    case Codes::affine: return fmt::format("{}-bit affine in groups of {}", scheme.bits, scheme.group_size);
  }
  return {};
}

bool QuantizationConfig::names(const std::string& module) const {
  return modules.contains(module) ||
         std::ranges::any_of(groups, [&](const SchemeGroup& group) { return group.modules.names(module); });
}

Scheme QuantizationConfig::scheme_of(const std::string& module) const {
  if (const auto it = modules.find(module); it != modules.end()) return it->second;
  if (naming(where, [&] { return ignored.has(module); })) return {};
  // A name goes before a pattern, a pattern before the class.
  const auto first = [&](auto&& is_match) -> std::optional<Scheme> {
    const auto it = std::ranges::find_if(groups, is_match);
    return it == groups.end() ? std::nullopt : std::optional(it->scheme);
  };
  if (const auto named = first([&](const SchemeGroup& g) { return g.modules.names(module); })) return *named;
  if (const auto covered =
          naming(where, [&] { return first([&](const SchemeGroup& g) { return g.modules.covers(module); }); }))
    return *covered;
  return first([](const SchemeGroup& g) { return g.all_linears; }).value_or(Scheme{});
}

QuantizationConfig read_quantization_config(const Checkpoint& checkpoint) {
  QuantizationConfig config;
  const std::string file = (checkpoint.path / "config.json").string();
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
      config.has_fp4_experts = value_or<std::string>(checkpoint.config, "expert_dtype", "") == "fp4";
    } else if (!modelopt.is_null()) {
      config.where = (checkpoint.path / "hf_quant_config.json").string();
      read_modelopt(config, modelopt);
    } else {
      config.where = file;
    }
  } catch (const Json::exception& error) {
    throw_input_error("{}: a value has another type than expected: {}", config.where, error.what());
  } catch (const InputError& error) {
    throw_input_error("{}: {}", config.where, error.what());
  }
  return config;
}

}  // namespace nibble
