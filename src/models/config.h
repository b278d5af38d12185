// Reading a model's configuration: from config.json in either of its styles, or from GGUF metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "models/rope.h"

namespace nibble {

// Typed access to the values of one configuration. Every failure is an InputError that names the file, the key, what is
// there and what was expected.
class ConfigReader {
 public:
  // `keys` is an object; `prefix` stands before every key ("llama." in GGUF metadata).
  ConfigReader(std::string file, const nlohmann::json& keys, std::string prefix = {})
      : file_(std::move(file)), keys_(&keys), prefix_(std::move(prefix)) {}

  bool has(std::string_view key) const;

  // A whole number within 1 … largest, or `fallback` if the key is missing or null; without fallback the key must
  // exist.
  int64_t size(std::string_view key, int64_t largest, std::optional<int64_t> fallback = {}) const;
  // A finite number.
  double number(std::string_view key, std::optional<double> fallback = {}) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string text(std::string_view key, std::optional<std::string> fallback = {}) const;

  // The object under `key`, or none if it is missing or null.
  std::optional<ConfigReader> object(std::string_view key) const;

  // Throws InputError: "{file}: {key} is {value}; {expected}".
  [[noreturn]] void reject(std::string_view key, std::string_view expected) const;

 private:
  const nlohmann::json* find(std::string_view key) const;  // null if missing or null

  std::string file_;
  const nlohmann::json* keys_;
  std::string prefix_;
};

// What all decoders of the Llama family have. Names are those of config.json.
struct DecoderConfig {
  std::string architecture;  // "llama", "qwen3": the name in the registry
  int64_t hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim, vocab_size;
  int64_t max_position_embeddings;
  float rms_norm_eps;
  bool tied_embeddings;                           // the output matrix is the embedding
  bool attention_bias = false, mlp_bias = false;  // promised by config.json; GGUF files just have biases or not
  RopeParameters rope;                            // as the configuration has it
  bool rope_is_known = true;  // false: a GGUF file's divisors have changed the rotation beyond those parameters
  Rotation rotation;
};

// The configuration's file as messages name it, and a reader over it: GGUF keys without their architecture's prefix.
ConfigReader config_reader(const Checkpoint& checkpoint);

// The architecture's name as the file gives it: `model_type` or `general.architecture`.
std::string architecture_name(const Checkpoint& checkpoint);

// A config.json that says the same, as Hugging Face's own files do. Throws InputError if a GGUF file stretches its
// rotation in a way that config.json has no words for.
nlohmann::ordered_json to_hugging_face_config(const DecoderConfig& config);

// Reads what DecoderConfig has. Throws InputError if something is missing, out of range, or asks for what is not
// implemented (another activation, a sliding window).
DecoderConfig read_decoder_config(const Checkpoint& checkpoint);

}  // namespace nibble
