#include "models/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "formats/format.h"

namespace nibble {

namespace {

std::string file_of(const Checkpoint& checkpoint) {
  return checkpoint.container == Container::gguf ? checkpoint.path.string()
                                                 : (checkpoint.path / "config.json").string();
}

}  // namespace

const nlohmann::json* ConfigReader::find(std::string_view key) const {
  const auto it = keys_->find(prefix_ + std::string(key));
  return it == keys_->end() || it->is_null() ? nullptr : &*it;
}

bool ConfigReader::has(std::string_view key) const { return find(key) != nullptr; }

void ConfigReader::reject(std::string_view key, std::string_view expected) const {
  const nlohmann::json* value = find(key);
  const std::string is =
      value == nullptr ? "missing" : value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  throw_input_error("{}: {}{} is {}; {}", file_, prefix_, key, is.substr(0, 200), expected);
}

int64_t ConfigReader::whole(std::string_view key, int64_t least, int64_t largest,
                            std::optional<int64_t> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  const bool fits = value != nullptr && value->is_number_integer() && *value >= least && *value <= largest;
  if (!fits) reject(key, fmt::format("a whole number from {} to {} expected", least, largest));
  return value->get<int64_t>();
}

int64_t ConfigReader::size(std::string_view key, int64_t largest, std::optional<int64_t> fallback) const {
  return whole(key, 1, largest, fallback);
}

int64_t ConfigReader::count(std::string_view key, int64_t largest, std::optional<int64_t> fallback) const {
  return whole(key, 0, largest, fallback);
}

std::optional<std::vector<std::string>> ConfigReader::texts(std::string_view key, int64_t length) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return {};
  const bool fits = value->is_array() && static_cast<int64_t>(value->size()) == length &&
                    std::ranges::all_of(*value, [](const auto& item) { return item.is_string(); });
  if (!fits) reject(key, fmt::format("a list of {} texts expected", length));
  return value->get<std::vector<std::string>>();
}

std::optional<std::vector<int64_t>> ConfigReader::whole_numbers(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return {};
  const bool fits =
      value->is_array() && std::ranges::all_of(*value, [](const auto& item) { return item.is_number_integer(); });
  if (!fits) reject(key, "a list of whole numbers expected");
  return value->get<std::vector<int64_t>>();
}

double ConfigReader::number(std::string_view key, std::optional<double> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>())) reject(key, "a number expected");
  return value->get<double>();
}

float ConfigReader::single(std::string_view key, std::optional<double> fallback, bool is_positive) const {
  const auto value = static_cast<float>(number(key, fallback));
  if (!std::isfinite(value) || (is_positive && !(value > 0)))
    reject(key, fmt::format("a {}number within float32 expected", is_positive ? "positive " : ""));
  return value;
}

bool ConfigReader::boolean(std::string_view key, bool fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) reject(key, "true or false expected");
  return value->get<bool>();
}

std::string ConfigReader::text(std::string_view key, std::optional<std::string> fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_string()) reject(key, "a text expected");
  return value->get<std::string>();
}

std::optional<ConfigReader> ConfigReader::object(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_object()) reject(key, "an object expected");
  return ConfigReader(file_, *value);
}

std::string architecture_name(const Checkpoint& checkpoint) {
  return ConfigReader(file_of(checkpoint), checkpoint.config)
      .text(checkpoint.container == Container::gguf ? "general.architecture" : "model_type");
}

ConfigReader config_reader(const Checkpoint& checkpoint) {
  return {file_of(checkpoint), checkpoint.config,
          checkpoint.container == Container::gguf ? architecture_name(checkpoint) + "." : ""};
}

namespace {

// The keys of the rope's scaling, which the containers and the two styles of config.json call by different names.
struct RopeKeys {
  ConfigReader reader;
  std::string type, factor, original, attention_factor, beta_fast, beta_slow;
};

RopeScaling scaling_named(const RopeKeys& keys) {
  const std::string name = keys.reader.text(keys.type, "default");
  if (name == "default" || name == "none") return RopeScaling::none;
  if (name == "linear") return RopeScaling::linear;
  if (name == "llama3") return RopeScaling::llama3;
  if (name == "yarn") return RopeScaling::yarn;
  keys.reader.reject(keys.type, "default, linear, llama3 or yarn are implemented");
}

void read_scaling(const RopeKeys& keys, double max_position_embeddings, RopeParameters& p) {
  p.scaling = scaling_named(keys);
  if (p.scaling == RopeScaling::none) return;
  const ConfigReader& reader = keys.reader;
  p.original_max_position_embeddings = reader.number(keys.original, max_position_embeddings);
  if (!(p.original_max_position_embeddings > 0 && p.original_max_position_embeddings <= kLargestContext))
    reader.reject(keys.original, fmt::format("a number above 0 and up to {} expected", kLargestContext));
  // Some configurations leave yarn's factor to the ratio of the two lengths.
  p.factor = p.scaling == RopeScaling::yarn
                 ? reader.number(keys.factor, max_position_embeddings / p.original_max_position_embeddings)
                 : reader.number(keys.factor);
  if (p.factor <= 0) reader.reject(keys.factor, "a positive number expected");
  if (p.scaling == RopeScaling::llama3) {
    p.low_freq_factor = reader.number("low_freq_factor");
    p.high_freq_factor = reader.number("high_freq_factor");
    if (!(p.low_freq_factor > 0 && p.high_freq_factor > p.low_freq_factor))
      reader.reject("high_freq_factor", fmt::format("more than low_freq_factor ({}) expected", p.low_freq_factor));
  }
  if (p.scaling == RopeScaling::yarn) {
    p.beta_fast = reader.number(keys.beta_fast, 32.0);
    p.beta_slow = reader.number(keys.beta_slow, 1.0);
    if (!(p.beta_slow > 0 && p.beta_fast > p.beta_slow))
      reader.reject(keys.beta_fast, fmt::format("more than {} ({}) expected", keys.beta_slow, p.beta_slow));
    p.truncate = reader.boolean("truncate", true);
    p.attention_factor = reader.number(keys.attention_factor, 0.0);
    const double mscale = reader.number("mscale", 0.0);
    p.mscale_all_dim = reader.number("mscale_all_dim", 0.0);
    if (p.attention_factor == 0 && mscale != 0 && p.mscale_all_dim != 0)
      p.attention_factor = yarn_attention_factor(p.factor, mscale) / yarn_attention_factor(p.factor, p.mscale_all_dim);
  }
}

// A GGUF file has llama3's scaling only as a tensor: each frequency is divided by its value.
void apply_rope_freqs(const Checkpoint& checkpoint, DecoderConfig& c) {
  const Tensor* tensor = checkpoint.find("rope_freqs.weight");
  if (tensor == nullptr) return;
  const auto count = static_cast<int64_t>(c.rotation.inv_freq.size());
  if (tensor->dtype != DType::f32 || tensor->shape != std::vector<int64_t>{count})
    throw_input_error("{}: rope_freqs.weight: {} {} in the file, F32 [{}] expected", checkpoint.path.string(),
                      dtype_name(tensor->dtype), shape_text(tensor->shape), count);
  std::vector<float> divisors;
  for (int64_t i = 0; i < count; i++) {
    divisors.push_back(load_unaligned<float>(tensor->bytes.data() + 4 * i));
    if (!(divisors.back() > 0) || !std::isfinite(divisors.back()))
      throw_input_error("{}: rope_freqs.weight[{}] is {}, a positive number expected", checkpoint.path.string(), i,
                        divisors.back());
    c.rotation.inv_freq[static_cast<size_t>(i)] /= divisors.back();
  }
  if (const auto scaled = find_llama3_scaling(c.rope, divisors)) {
    c.rope = *scaled;
  } else {
    c.rope_is_known = false;
  }
}

void check_heads(const ConfigReader& reader, const DecoderConfig& c, std::string_view kv_key, int64_t rotary_dim,
                 std::string_view rotary_key) {
  if (c.num_heads % c.num_kv_heads != 0)
    reader.reject(kv_key, fmt::format("a divisor of the {} query heads expected", c.num_heads));
  if (rotary_dim % 2 != 0 || rotary_dim > c.head_dim)
    reader.reject(rotary_key,
                  fmt::format("an even rotary size up to the head's {} expected, it is {}", c.head_dim, rotary_dim));
}

// What the file's numbers became: products of sizes, and doubles that may have overflowed a float, or each other.
void check_numbers(const std::string& file, const DecoderConfig& c) {
  if (c.num_heads * c.head_dim > kLargestWidth)
    throw_input_error("{}: {} heads of {} are wider than {}, the most that is read", file, c.num_heads, c.head_dim,
                      kLargestWidth);
  if (!(c.rms_norm_eps >= 0 && c.rms_norm_eps <= 1))
    throw_input_error("{}: the epsilon of the norms is {}, a number from 0 to 1 expected", file, c.rms_norm_eps);
  if (!(c.rope.theta > 1)) throw_input_error("{}: the rope's theta is {}, more than 1 expected", file, c.rope.theta);
  for (const float frequency : c.rotation.inv_freq)
    if (!std::isfinite(frequency * c.rotation.scale))
      throw_input_error("{}: the rope's parameters make a frequency {} and a scale {}, finite numbers expected", file,
                        frequency, c.rotation.scale);
}

DecoderConfig read_gguf(const Checkpoint& checkpoint) {
  const ConfigReader reader = config_reader(checkpoint);
  DecoderConfig c{.architecture = architecture_name(checkpoint)};
  c.hidden_size = reader.size("embedding_length", kLargestWidth);
  c.intermediate_size = reader.size("feed_forward_length", kLargestWidth);
  c.num_layers = reader.size("block_count", kMostLayers);
  const int64_t num_predicting = reader.count("nextn_predict_layers", kMostLayers, 0);  // the last ones: not used here
  if (num_predicting >= c.num_layers)
    reader.reject("nextn_predict_layers", fmt::format("less than the {} layers of block_count expected", c.num_layers));
  c.num_layers -= num_predicting;
  c.num_heads = reader.size("attention.head_count", kMostHeads);
  c.num_kv_heads = reader.size("attention.head_count_kv", kMostHeads, c.num_heads);
  const bool is_latent = reader.has("attention.kv_lora_rank");  // its heads are read by read_mla_config
  c.head_dim = is_latent                            ? reader.size("rope.dimension_count", kLargestWidth)
               : reader.has("attention.key_length") ? reader.size("attention.key_length", kLargestWidth)
                                                    : std::max<int64_t>(1, c.hidden_size / c.num_heads);
  if (!is_latent && reader.size("attention.value_length", kLargestWidth, c.head_dim) != c.head_dim)
    reader.reject("attention.value_length", fmt::format("the keys' length, {}, expected", c.head_dim));
  const auto tokens = checkpoint.config.find("tokenizer.ggml.tokens");
  c.vocab_size = tokens != checkpoint.config.end() && tokens->is_array() && !tokens->empty()
                     ? reader.size("vocab_size", kLargestVocabulary, static_cast<int64_t>(tokens->size()))
                     : reader.size("vocab_size", kLargestVocabulary);
  c.max_position_embeddings = reader.size("context_length", kLargestContext);
  c.rms_norm_eps = static_cast<float>(reader.number("attention.layer_norm_rms_epsilon"));
  c.tied_embeddings = checkpoint.find("output.weight") == nullptr;

  RopeParameters rope{.theta = reader.number("rope.freq_base", 10000.0),
                      .rotary_dim = reader.size("rope.dimension_count", kLargestWidth, c.head_dim)};
  check_heads(reader, c, "attention.head_count_kv", rope.rotary_dim, "rope.dimension_count");
  read_scaling({reader, "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
                "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"},
               static_cast<double>(c.max_position_embeddings), rope);
  const double log_multiplier = reader.number("rope.scaling.yarn_log_multiplier", 0.0);
  if (is_latent && rope.scaling == RopeScaling::yarn && log_multiplier != 0) {
    // 0.1 mscale_all_dim. mscale is not in the file; all published models have the same.
    rope.attention_factor = 1;
    rope.mscale_all_dim = 10 * log_multiplier;
  } else {
    rope.attention_factor *= yarn_attention_factor(rope.factor);  // in GGUF files it multiplies YaRN's own
  }
  c.rope = rope;
  c.rotation = make_rotation(rope);
  apply_rope_freqs(checkpoint, c);
  return c;
}

DecoderConfig read_hugging_face(const Checkpoint& checkpoint) {
  const ConfigReader reader = config_reader(checkpoint);
  DecoderConfig c{.architecture = architecture_name(checkpoint)};
  c.hidden_size = reader.size("hidden_size", kLargestWidth);
  c.intermediate_size = reader.size("intermediate_size", kLargestWidth);
  c.num_layers = reader.size("num_hidden_layers", kMostLayers);
  c.num_heads = reader.size("num_attention_heads", kMostHeads);
  c.num_kv_heads = reader.size("num_key_value_heads", kMostHeads, c.num_heads);
  c.head_dim = reader.has("kv_lora_rank")
                   ? reader.size("qk_rope_head_dim", kLargestWidth)  // the others are read by read_mla_config
                   : reader.size("head_dim", kLargestWidth, std::max<int64_t>(1, c.hidden_size / c.num_heads));
  c.vocab_size = reader.size("vocab_size", kLargestVocabulary);
  c.max_position_embeddings = reader.size("max_position_embeddings", kLargestContext, 2048);
  c.rms_norm_eps = static_cast<float>(reader.number("rms_norm_eps", 1e-6));
  c.tied_embeddings = reader.boolean("tie_word_embeddings", false);
  c.attention_bias = reader.boolean("attention_bias", false);
  c.mlp_bias = reader.boolean("mlp_bias", false);
  if (reader.text("hidden_act", "silu") != "silu") reader.reject("hidden_act", "silu is implemented");
  if (reader.boolean("use_sliding_window", false)) reader.reject("use_sliding_window", "false is implemented");

  // Newer files gather the rope's values in rope_parameters; older ones have rope_theta beside rope_scaling.
  const std::optional<ConfigReader> newer = reader.object("rope_parameters");
  const std::optional<ConfigReader> scaling = newer ? newer : reader.object("rope_scaling");
  const ConfigReader& theta = newer && newer->has("rope_theta") ? *newer : reader;
  const double partial =
      (newer && newer->has("partial_rotary_factor") ? *newer : reader).number("partial_rotary_factor", 1.0);
  if (!(partial > 0 && partial <= 1)) reader.reject("partial_rotary_factor", "a number above 0 and up to 1 expected");
  RopeParameters rope{.theta = theta.number("rope_theta", 10000.0),
                      .rotary_dim = static_cast<int64_t>(static_cast<double>(c.head_dim) * partial)};
  if (!(rope.theta > 1)) theta.reject("rope_theta", "a number above 1 expected");
  check_heads(reader, c, "num_key_value_heads", rope.rotary_dim, "head_dim");
  if (scaling) {
    const std::string type = scaling->has("rope_type") ? "rope_type" : "type";
    read_scaling(
        {*scaling, type, "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"},
        static_cast<double>(c.max_position_embeddings), rope);
  }
  c.rope = rope;
  c.rotation = make_rotation(rope);
  return c;
}

}  // namespace

nlohmann::ordered_json to_hugging_face_config(const DecoderConfig& c) {
  if (c.moe || c.mla || !c.windows.empty())
    throw_input_error("a config.json is written only for dense architectures, not for {}", c.architecture);
  if (!c.rope_is_known)
    throw_input_error(
        "the file's rope_freqs.weight fits no llama3 scaling, the only one of its kind that a config.json can "
        "name; quantise from the original Hugging Face folder instead");
  nlohmann::ordered_json rope = {{"rope_type", rope_scaling_name(c.rope.scaling)}, {"rope_theta", c.rope.theta}};
  if (c.rope.scaling != RopeScaling::none) rope["factor"] = c.rope.factor;
  if (c.rope.scaling == RopeScaling::llama3 || c.rope.scaling == RopeScaling::yarn)
    rope["original_max_position_embeddings"] = static_cast<int64_t>(c.rope.original_max_position_embeddings);
  if (c.rope.scaling == RopeScaling::llama3) {
    rope["low_freq_factor"] = c.rope.low_freq_factor;
    rope["high_freq_factor"] = c.rope.high_freq_factor;
  }
  if (c.rope.scaling == RopeScaling::yarn) {
    rope["beta_fast"] = c.rope.beta_fast;
    rope["beta_slow"] = c.rope.beta_slow;
    rope["truncate"] = c.rope.truncate;
    rope["attention_factor"] = c.rotation.scale;
  }
  if (c.rope.rotary_dim != c.head_dim)
    rope["partial_rotary_factor"] = static_cast<double>(c.rope.rotary_dim) / static_cast<double>(c.head_dim);

  nlohmann::ordered_json config;
  config["architectures"] = {c.architecture == "qwen3" ? "Qwen3ForCausalLM" : "LlamaForCausalLM"};
  config["model_type"] = c.architecture;
  config["hidden_size"] = c.hidden_size;
  config["intermediate_size"] = c.intermediate_size;
  config["num_hidden_layers"] = c.num_layers;
  config["num_attention_heads"] = c.num_heads;
  config["num_key_value_heads"] = c.num_kv_heads;
  config["head_dim"] = c.head_dim;
  config["hidden_act"] = "silu";
  config["vocab_size"] = c.vocab_size;
  config["max_position_embeddings"] = c.max_position_embeddings;
  config["rms_norm_eps"] = c.rms_norm_eps;
  config["tie_word_embeddings"] = c.tied_embeddings;
  config["rope_theta"] = c.rope.theta;  // for readers of the older style
  config["rope_parameters"] = std::move(rope);
  return config;
}

DecoderConfig read_decoder_config(const Checkpoint& checkpoint) {
  DecoderConfig c = checkpoint.container == Container::gguf ? read_gguf(checkpoint) : read_hugging_face(checkpoint);
  check_numbers(file_of(checkpoint), c);
  return c;
}

}  // namespace nibble
