#include "models/decoder.h"

namespace nibble {

Decoder::Layer Decoder::declare_layer(int64_t layer, const LayerStyle& style) {
  Layer l;
  if (config.mla) {
    l.attention = declare_mla(weights, config, layer);
    kv_layers.push_back({config.mla->kv_lora_rank + config.mla->qk_rope_head_dim, 0});
  } else {
    l.attention = declare_attention(weights, config, layer, style);
    const int64_t width = config.num_kv_heads * config.head_dim;
    kv_layers.push_back({width, width, config.window(layer), config.num_kv_heads});
  }
  if (config.is_sparse(layer)) {
    l.mlp = declare_moe(weights, config, layer, style);
  } else {
    l.mlp = declare_mlp(weights, config, layer, style);
  }
  return l;
}

Decoder::Decoder(DecoderConfig c, WeightSource& source, const LayerStyle& style) : Model(std::move(c), source) {
  embedding_ =
      weights.matrix({.name = {"model.embed_tokens", "token_embd"}, .N = config.vocab_size, .K = config.hidden_size});
  for (int64_t l = 0; l < config.num_layers; l++) layers_.push_back(declare_layer(l, style));
  norm_ = weights.vector({.name = {"model.norm.weight", "output_norm.weight"}, .size = config.hidden_size});
  output_ = config.tied_embeddings
                ? embedding_
                : weights.matrix({.name = {"lm_head", "output"}, .N = config.vocab_size, .K = config.hidden_size});
}

Step Decoder::forward(int64_t M, LogitsFor logits_for) const {
  Step step{.M = M, .logits_for = logits_for};
  const int rotation = step.rotation(config.rotation);
  const Scratch s = make_scratch(step, config);
  step.embed({.w = embedding_, .out = s.x});
  for (size_t l = 0; l < layers_.size(); l++) {
    const auto layer = static_cast<int>(l);
    if (const auto* mla = std::get_if<MlaWeights>(&layers_[l].attention)) {
      mla_block(step, config, *mla, s, rotation, layer);
    } else {
      attention_block(step, config, std::get<AttentionWeights>(layers_[l].attention), s, rotation, layer);
    }
    if (const auto* moe = std::get_if<MoeWeights>(&layers_[l].mlp)) {
      moe_block(step, config, *moe, s);
    } else {
      mlp_block(step, config, std::get<MlpWeights>(layers_[l].mlp), s);
    }
  }
  output_block(step, config, norm_, output_, s);
  return step;
}

}  // namespace nibble
