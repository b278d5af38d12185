#include "engine/text.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/naming.h"
#include "base/read_file.h"
#include "checkpoint/json_file.h"

namespace nibble {

namespace {

// The file's JSON, or null if there is no such file.
nlohmann::json read_json_if_present(const std::filesystem::path& path) {
  return is_there(path) ? read_json_file(path, RepeatedKeys::last_wins) : nlohmann::json();
}

bool has_tokenizer(const std::filesystem::path& folder) {
  return is_there(folder / "tokenizer.json") || is_there(folder / "tokenizer.model");
}

Tokenizer tokenizer_of_sentencepiece(const std::filesystem::path& path, const nlohmann::json& config) {
  const std::string model = read_file(path);
  return naming(path.string(), [&] { return Tokenizer::from_sentencepiece(model, config); });
}

Tokenizer tokenizer_of_json(const std::filesystem::path& path, const nlohmann::json& config) {
  const nlohmann::json json = read_json_file(path, RepeatedKeys::last_wins);
  return naming(path.string(), [&] { return Tokenizer::from_json(json, config); });
}

// tokenizer.json goes before tokenizer.model: it says all that the model says, and more.
Tokenizer tokenizer_of_folder(const std::filesystem::path& folder) {
  const nlohmann::json config = read_json_if_present(folder / "tokenizer_config.json");
  if (!is_there(folder / "tokenizer.json")) return tokenizer_of_sentencepiece(folder / "tokenizer.model", config);
  return tokenizer_of_json(folder / "tokenizer.json", config);
}

// Adds the id, or the ids of the list, under `key`. What is no id of any vocabulary ends no answer.
void add_ids(const nlohmann::json& object, const char* key, std::vector<int32_t>& ids) {
  if (!object.is_object() || !object.contains(key)) return;
  const nlohmann::json& value = object.at(key);
  for (const nlohmann::json& id : value.is_array() ? value : nlohmann::json::array({value}))
    if (id.is_number_integer() && id >= 0 && id <= std::numeric_limits<int32_t>::max())
      ids.push_back(id.get<int32_t>());
}

}  // namespace

Tokenizer load_tokenizer(const std::filesystem::path& path) {
  if (is_there(path) && std::filesystem::is_directory(path)) {
    if (!has_tokenizer(path)) throw_input_error("{}: has no tokenizer.json and no tokenizer.model", path.string());
    return tokenizer_of_folder(path);
  }
  if (path.extension() == ".model") return tokenizer_of_sentencepiece(path, nullptr);
  if (path.extension() == ".json") return tokenizer_of_json(path, nullptr);
  const Checkpoint checkpoint = open_checkpoint(path);
  return naming(path.string(), [&] { return Tokenizer::from_gguf(checkpoint.config); });
}

std::optional<Tokenizer> find_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.container == Container::gguf) {
    if (!checkpoint.config.contains("tokenizer.ggml.model")) return {};
    return naming(checkpoint.path.string(), [&] { return Tokenizer::from_gguf(checkpoint.config); });
  }
  if (!has_tokenizer(checkpoint.path)) return {};
  return tokenizer_of_folder(checkpoint.path);
}

std::optional<std::string> find_chat_template(const Checkpoint& checkpoint) {
  if (checkpoint.container == Container::gguf) {
    const auto it = checkpoint.config.find("tokenizer.chat_template");
    if (it == checkpoint.config.end()) return {};
    if (!it->is_string())
      throw_input_error("{}: tokenizer.chat_template is {}, a text expected", checkpoint.path.string(),
                        it->type_name());
    return it->get<std::string>();
  }
  if (const auto file = checkpoint.path / "chat_template.jinja"; is_there(file)) return read_file(file);
  const std::filesystem::path file = checkpoint.path / "tokenizer_config.json";
  const nlohmann::json config = read_json_if_present(file);
  if (!config.is_object() || !config.contains("chat_template") || config.at("chat_template").is_null()) return {};
  const nlohmann::json& value = config.at("chat_template");
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array())
    throw_input_error("{}: chat_template is {}, a text or a list of them by name expected", file.string(),
                      value.type_name());
  for (const nlohmann::json& named : value)  // several by name: the one for conversations is "default"
    if (const auto it = named.is_object() ? named.find("template") : named.end();
        it != named.end() && it->is_string() && named.contains("name") && named.at("name") == "default")
      return it->get<std::string>();
  throw_input_error("{}: chat_template: none of the {} in the list is the text \"default\"", file.string(),
                    value.size());
}

std::vector<int32_t> stop_tokens(const Checkpoint& checkpoint) {
  std::vector<int32_t> ids;
  if (checkpoint.container == Container::gguf) {
    for (const char* key :
         {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
      add_ids(checkpoint.config, key, ids);
  } else {
    add_ids(checkpoint.generation_config, "eos_token_id", ids);
    if (ids.empty()) add_ids(checkpoint.config, "eos_token_id", ids);
  }
  return ids;
}

SamplingOptions default_sampling(const Checkpoint& checkpoint) {
  SamplingOptions options;
  const nlohmann::json& config = checkpoint.generation_config;
  const std::string file = (checkpoint.path / "generation_config.json").string();
  const auto has = [&](const char* key) {
    return config.is_object() && config.contains(key) && !config.at(key).is_null();
  };
  if (!has("do_sample")) return options;
  if (!config.at("do_sample").is_boolean())
    throw_input_error("{}: do_sample is {}, true or false expected", file, config.at("do_sample").dump());
  if (config.at("do_sample") == false) return options;
  const auto number = [&](const char* key, double fallback) {
    if (!has(key)) return fallback;
    const nlohmann::json& value = config.at(key);
    if (!value.is_number() || !(std::abs(value.get<double>()) <= 1e9))
      throw_input_error("{}: {} is {}, a number up to 1e9 expected", file, key, value.dump());
    return value.get<double>();
  };
  const double top_k = number("top_k", 0);
  if (top_k != std::floor(top_k)) throw_input_error("{}: top_k is {}, a whole number expected", file, top_k);
  options.temperature = static_cast<float>(number("temperature", 1));
  options.top_k = static_cast<int64_t>(top_k);
  options.top_p = static_cast<float>(number("top_p", 1));
  options.min_p = static_cast<float>(number("min_p", 0));
  options.repetition_penalty = static_cast<float>(number("repetition_penalty", 1));
  naming(file, [&] { check_sampling_options(options); });
  return options;
}

nlohmann::ordered_json template_variables(const Tokenizer& tokenizer) {
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
  const auto name = [&](std::optional<int32_t> id) {
    return id ? std::string(tokenizer.token_bytes(*id)) : std::string();
  };
  variables["bos_token"] = name(tokenizer.bos());
  variables["eos_token"] = name(tokenizer.eos());
  return variables;
}

}  // namespace nibble
