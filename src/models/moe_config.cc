#include "models/moe_config.h"

#include <cmath>

#include "base/error.h"

namespace nibble {

namespace {

// The keys of the two containers.
struct Keys {
  std::string_view num_experts, top_k, intermediate_size, num_shared, num_dense, num_groups, top_groups, normalise,
      scale;
};
constexpr Keys kHuggingFace = {"n_routed_experts", "num_experts_per_tok",   "moe_intermediate_size",
                               "n_shared_experts", "first_k_dense_replace", "n_group",
                               "topk_group",       "norm_topk_prob",        "routed_scaling_factor"};
constexpr Keys kGguf = {"expert_count",
                        "expert_used_count",
                        "expert_feed_forward_length",
                        "expert_shared_count",
                        "leading_dense_block_count",
                        "expert_group_count",
                        "expert_group_used_count",
                        "expert_weights_norm",
                        "expert_weights_scale"};

// What every mixture has; `num_experts` as Hugging Face's file calls it.
MoeConfig read_common(const Checkpoint& checkpoint, const DecoderConfig& c, std::string_view num_experts) {
  const ConfigReader reader = config_reader(checkpoint);
  const Keys& keys = checkpoint.container == Container::gguf ? kGguf : kHuggingFace;
  MoeConfig moe{};
  moe.num_experts = reader.size(num_experts, kMostExperts);
  moe.top_k = reader.size(keys.top_k, moe.num_experts);
  moe.intermediate_size = reader.size(keys.intermediate_size, kLargestWidth, c.intermediate_size);
  moe.is_sparse.assign(static_cast<size_t>(c.num_layers), true);
  return moe;
}

// Layers that are named as dense, the first ones or in a list of kinds.
void read_dense_layers(const ConfigReader& reader, const Keys& keys, int64_t num_layers, MoeConfig& moe) {
  if (const auto kinds = reader.texts("mlp_layer_types", num_layers)) {
    for (size_t l = 0; l < kinds->size(); l++) {
      if ((*kinds)[l] != "dense" && (*kinds)[l] != "sparse")
        reader.reject("mlp_layer_types", "dense and sparse are implemented");
      moe.is_sparse[l] = (*kinds)[l] == "sparse";
    }
    return;
  }
  const int64_t num_dense = reader.count(keys.num_dense, num_layers);
  std::fill_n(moe.is_sparse.begin(), num_dense, false);
}

}  // namespace

MoeConfig read_softmax_experts(const Checkpoint& checkpoint, const DecoderConfig& c, bool normalise_default) {
  const ConfigReader reader = config_reader(checkpoint);
  if (checkpoint.container == Container::gguf) {
    if (reader.count("expert_gating_func", 1 << 10, 1) != 1)
      reader.reject("expert_gating_func", "1 (softmax) is implemented for this architecture");
    MoeConfig moe = read_common(checkpoint, c, kGguf.num_experts);
    moe.normalise = reader.boolean(kGguf.normalise, true);
    return moe;
  }
  MoeConfig moe = read_common(checkpoint, c, reader.has("num_experts") ? "num_experts" : "num_local_experts");
  moe.normalise = reader.boolean(kHuggingFace.normalise, normalise_default);
  const int64_t every = reader.size("decoder_sparse_step", kMostLayers, 1);
  for (int64_t l = 0; l < c.num_layers; l++) moe.is_sparse[static_cast<size_t>(l)] = (l + 1) % every == 0;
  for (int64_t l : reader.whole_numbers("mlp_only_layers").value_or(std::vector<int64_t>{})) {
    if (l < 0 || l >= c.num_layers)
      reader.reject("mlp_only_layers", fmt::format("layers below {} expected", c.num_layers));
    moe.is_sparse[static_cast<size_t>(l)] = false;
  }
  return moe;
}

MoeConfig read_sigmoid_experts(const Checkpoint& checkpoint, const DecoderConfig& c) {
  const ConfigReader reader = config_reader(checkpoint);
  const bool is_gguf = checkpoint.container == Container::gguf;
  const Keys& keys = is_gguf ? kGguf : kHuggingFace;
  MoeConfig moe = read_common(checkpoint, c, keys.num_experts);
  moe.scores = RouterScores::sigmoid;
  if (is_gguf) {
    // Files of GLM-4.7-Flash from before the key was known have none.
    if (reader.count("expert_gating_func", 1 << 10, 2) != 2)
      reader.reject("expert_gating_func", "2 (sigmoid) is implemented for this architecture");
  } else {
    if (reader.text("scoring_func", "sigmoid") != "sigmoid") reader.reject("scoring_func", "sigmoid is implemented");
    if (reader.text("topk_method", "noaux_tc") != "noaux_tc") reader.reject("topk_method", "noaux_tc is implemented");
    if (reader.size("moe_layer_freq", kMostLayers, 1) != 1) reader.reject("moe_layer_freq", "1 is implemented");
  }
  read_dense_layers(reader, keys, c.num_layers, moe);
  moe.shared_intermediate_size = reader.count(keys.num_shared, 1 << 10, 0) * moe.intermediate_size;
  moe.normalise = reader.boolean(keys.normalise, !is_gguf);  // llama.cpp's converter writes the key only if it is true
  moe.scale = reader.single(keys.scale, 1.0, true);
  moe.num_groups = reader.size(keys.num_groups, moe.num_experts, 1);
  moe.top_groups = reader.size(keys.top_groups, moe.num_groups, 1);
  if (moe.num_experts % moe.num_groups != 0)
    reader.reject(keys.num_groups, fmt::format("a divisor of the {} experts expected", moe.num_experts));
  if (moe.num_experts / moe.num_groups * moe.top_groups < moe.top_k)
    reader.reject(keys.top_groups, fmt::format("groups with at least the {} experts of a token expected", moe.top_k));
  return moe;
}

MlaConfig read_mla_config(const Checkpoint& checkpoint, const DecoderConfig& c) {
  const ConfigReader reader = config_reader(checkpoint);
  MlaConfig mla{};
  if (checkpoint.container == Container::gguf) {
    mla.q_lora_rank = reader.count("attention.q_lora_rank", kLargestWidth, 0);
    mla.kv_lora_rank = reader.size("attention.kv_lora_rank", kLargestWidth);
    mla.qk_rope_head_dim = reader.size("rope.dimension_count", kLargestWidth);
    // Files from before keys and values were absorbed have the heads' sizes under the plain keys.
    const bool is_absorbed = reader.has("attention.key_length_mla");
    const char* key_length_key = is_absorbed ? "attention.key_length_mla" : "attention.key_length";
    const int64_t key_length = reader.size(key_length_key, kLargestWidth);
    if (key_length <= mla.qk_rope_head_dim)
      reader.reject(key_length_key,
                    fmt::format("more than the {} of rope.dimension_count expected", mla.qk_rope_head_dim));
    mla.qk_nope_head_dim = key_length - mla.qk_rope_head_dim;
    mla.v_head_dim = reader.size(is_absorbed ? "attention.value_length_mla" : "attention.value_length", kLargestWidth);
    mla.rope_interleave = true;
  } else {
    mla.q_lora_rank = reader.count("q_lora_rank", kLargestWidth, 0);
    mla.kv_lora_rank = reader.size("kv_lora_rank", kLargestWidth);
    mla.qk_nope_head_dim = reader.size("qk_nope_head_dim", kLargestWidth);
    mla.qk_rope_head_dim = reader.size("qk_rope_head_dim", kLargestWidth);
    mla.v_head_dim = reader.size("v_head_dim", kLargestWidth);
    mla.rope_interleave = reader.boolean("rope_interleave", true);
  }
  const double mscale = yarn_attention_factor(c.rope.factor, c.rope.mscale_all_dim);
  mla.scale =
      static_cast<float>(mscale * mscale / std::sqrt(static_cast<double>(mla.qk_nope_head_dim + mla.qk_rope_head_dim)));
  if (!std::isfinite(mla.scale) || !(mla.scale > 0))
    throw_input_error(
        "{}: the rope's parameters make the scale of latent attention {}, a positive finite number expected",
        checkpoint.path.string(), mla.scale);
  return mla;
}

}  // namespace nibble
