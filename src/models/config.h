// Reading a model's configuration: from config.json in either of its styles, or from GGUF metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  // The same, and 0 is one, too.
  int64_t count(std::string_view key, int64_t largest, std::optional<int64_t> fallback = {}) const;
  // A finite number.
  double number(std::string_view key, std::optional<double> fallback = {}) const;
  // The same as a float, which is not infinite and, if it has to be positive, does not become 0.
  float single(std::string_view key, std::optional<double> fallback, bool is_positive) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string text(std::string_view key, std::optional<std::string> fallback = {}) const;

  // A list of `length` texts or numbers, or none if the key is missing or null.
  std::optional<std::vector<std::string>> texts(std::string_view key, int64_t length) const;
  std::optional<std::vector<int64_t>> whole_numbers(std::string_view key) const;

  // The object under `key`, or none if it is missing or null.
  std::optional<ConfigReader> object(std::string_view key) const;

  // Throws InputError: "{file}: {key} is {value}; {expected}".
  [[noreturn]] void reject(std::string_view key, std::string_view expected) const;

 private:
  const nlohmann::json* find(std::string_view key) const;  // null if missing or null
  int64_t whole(std::string_view key, int64_t least, int64_t largest, std::optional<int64_t> fallback) const;

  std::string file_;
  const nlohmann::json* keys_;
  std::string prefix_;
};

// A mixture of experts, as far as a model has one. Names are those of config.json.
struct MoeConfig {
  int64_t num_experts, top_k, intermediate_size;  // num_experts_per_tok, moe_intermediate_size
  std::vector<bool> is_sparse;                    // by layer: whether it has experts or a dense MLP
  int64_t shared_intermediate_size = 0;           // of the expert that every token takes; 0: there is none
  RouterScores scores = RouterScores::softmax;
  int64_t num_groups = 1, top_groups = 1;  // n_group, topk_group
  bool normalise = true;                   // norm_topk_prob
  float scale = 1.0f;                      // routed_scaling_factor
  ExpertActivation activation = ExpertActivation::silu;
  float alpha = 0, limit = 0;  // swiglu_alpha, swiglu_limit of the clamped activation
};

// Multi-head latent attention: keys and values are projections of one latent vector a token.
struct MlaConfig {
  int64_t q_lora_rank;  // 0: queries come straight from the hidden state
  int64_t kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
  bool rope_interleave;
  float scale;  // of the scores
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
  std::vector<int64_t> windows;  // by layer: how many positions attention sees, 0: all; empty: all in all layers
  std::optional<MoeConfig> moe;
  std::optional<MlaConfig> mla;

  int64_t window(int64_t layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
  bool is_sparse(int64_t layer) const { return moe && moe->is_sparse[static_cast<size_t>(layer)]; }
};

// The configuration's file as messages name it, and a reader over it: GGUF keys without their architecture's prefix.
ConfigReader config_reader(const Checkpoint& checkpoint);

// The architecture's name as the file gives it: `model_type` or `general.architecture`.
std::string architecture_name(const Checkpoint& checkpoint);

// A config.json that says the same, as Hugging Face's own files do. Throws InputError if a GGUF file stretches its
// rotation in a way that config.json has no words for.
nlohmann::ordered_json to_hugging_face_config(const DecoderConfig& config);

// Beyond these no model exists; a file that says so is damaged, and products of them still fit an int64.
inline constexpr int64_t kLargestWidth = 1 << 20, kLargestVocabulary = 1 << 24, kLargestContext = 1 << 28,
                         kMostLayers = 1024, kMostHeads = 4096, kMostExperts = 1 << 16;

// Reads what DecoderConfig has, but for windows, moe and mla, which only some architectures have. Throws InputError if
// something is missing, out of range, or asks for what is not implemented (another activation).
DecoderConfig read_decoder_config(const Checkpoint& checkpoint);

}  // namespace nibble
