// Published shapes made small: the same ops, names and quirks, in a few hundred kilobytes.
#pragma once

#include "engine/random_checkpoint.h"
#include "models/shapes.h"

namespace nibble {

// Two layers, widths of 64 to 128, 8 experts, windows of 9 positions.
inline Checkpoint small_shape(const std::string& name) {
  Checkpoint checkpoint = shape_checkpoint(name, 2);
  nlohmann::json small = {
      {"hidden_size", 64},     {"intermediate_size", 64},  {"num_attention_heads", 4},    {"num_key_value_heads", 2},
      {"head_dim", 32},        {"vocab_size", 67},         {"sliding_window", 9},         {"num_local_experts", 8},
      {"n_routed_experts", 8}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 64}, {"q_lora_rank", 64},
      {"kv_lora_rank", 64},    {"qk_nope_head_dim", 32},   {"qk_rope_head_dim", 32},      {"v_head_dim", 32}};
  if (checkpoint.config.contains("kv_lora_rank")) small["num_key_value_heads"] = 4;
  for (const auto& [key, value] : small.items())
    if (checkpoint.config.contains(key)) checkpoint.config[key] = value;
  return checkpoint;
}

}  // namespace nibble
