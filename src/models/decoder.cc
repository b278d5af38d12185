#include "models/decoder.h"

namespace nibble {

DenseDecoder::DenseDecoder(DecoderConfig c, WeightSource& source, LayerStyle style) : Model(std::move(c), source) {
  embedding_ =
      weights.matrix({.name = {"model.embed_tokens", "token_embd"}, .N = config.vocab_size, .K = config.hidden_size});
  for (int64_t l = 0; l < config.num_layers; l++) {
    layers_.push_back({declare_attention(weights, config, l, style), declare_mlp(weights, config, l)});
    kv_layers.push_back({config.num_kv_heads * config.head_dim, config.num_kv_heads * config.head_dim});
  }
  norm_ = weights.vector({.name = {"model.norm.weight", "output_norm.weight"}, .size = config.hidden_size});
  output_ = config.tied_embeddings
                ? embedding_
                : weights.matrix({.name = {"lm_head", "output"}, .N = config.vocab_size, .K = config.hidden_size});
}

Step DenseDecoder::forward(int64_t M, LogitsFor logits_for) const {
  Step step{.M = M, .logits_for = logits_for};
  const int rotation = step.rotation(config.rotation);
  const Scratch s = make_scratch(step, config);
  step.embed({.w = embedding_, .out = s.x});
  for (size_t l = 0; l < layers_.size(); l++) {
    attention_block(step, config, layers_[l].attention, s, rotation, static_cast<int>(l));
    mlp_block(step, config, layers_[l].mlp, s);
  }
  output_block(step, config, norm_, output_, s);
  return step;
}

}  // namespace nibble
