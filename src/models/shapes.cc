#include "models/shapes.h"

#include <array>

#include <fmt/ranges.h>

#include "base/error.h"

namespace nibble {

namespace {

struct Shape {
  std::string_view name;
  const char* config;  // what the model's reader needs of the published config.json
};

constexpr std::array kShapes = {
    Shape{"llama-3.2-1b", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
      "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
      "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
      "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"},
    Shape{"llama-3.1-8b", R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
      "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"},
    Shape{"smollm2-135m", R"({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
      "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
      "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
      "rope_theta": 100000.0})"},
    Shape{"qwen3-0.6b", R"({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
      "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
      "rope_theta": 1000000.0})"},
    Shape{"qwen3-30b-a3b", R"({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
      "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
      "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
      "rope_theta": 1000000.0, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
      "norm_topk_prob": true})"},
    Shape{"mixtral-8x7b", R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
      "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "rope_theta": 1000000.0,
      "num_local_experts": 8, "num_experts_per_tok": 2})"},
    Shape{"gpt-oss-20b", R"({"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
      "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
      "vocab_size": 201088, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
      "attention_bias": true, "rope_theta": 150000.0, "rope_scaling": {"rope_type": "yarn", "factor": 32.0,
      "original_max_position_embeddings": 4096, "truncate": false}, "sliding_window": 128, "num_local_experts": 32,
      "num_experts_per_tok": 4})"},
    Shape{"gpt-oss-120b", R"({"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
      "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
      "vocab_size": 201088, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
      "attention_bias": true, "rope_theta": 150000.0, "rope_scaling": {"rope_type": "yarn", "factor": 32.0,
      "original_max_position_embeddings": 4096, "truncate": false}, "sliding_window": 128, "num_local_experts": 128,
      "num_experts_per_tok": 4})"},
    Shape{"glm-4.7-flash", R"({"model_type": "glm4_moe_lite", "hidden_size": 2048, "intermediate_size": 10240,
      "num_hidden_layers": 47, "num_attention_heads": 20, "num_key_value_heads": 20, "q_lora_rank": 768,
      "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "vocab_size": 154880,
      "max_position_embeddings": 202752, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "rope_theta": 1000000.0,
      "n_routed_experts": 64, "num_experts_per_tok": 4, "n_shared_experts": 1, "moe_intermediate_size": 1536,
      "first_k_dense_replace": 1, "routed_scaling_factor": 1.8, "norm_topk_prob": true})"},
};

}  // namespace

std::vector<std::string_view> shape_names() {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return names;
}

Checkpoint shape_checkpoint(const std::string& name, int64_t num_layers) {
  for (const Shape& shape : kShapes) {
    if (shape.name != name) continue;
    Checkpoint checkpoint{.container = Container::safetensors, .path = name};
    checkpoint.config = parse_json(shape.config);
    if (num_layers > 0) checkpoint.config["num_hidden_layers"] = num_layers;
    return checkpoint;
  }
  throw_input_error("--shape {}: known are {}", name, fmt::join(shape_names(), ", "));
}

}  // namespace nibble
