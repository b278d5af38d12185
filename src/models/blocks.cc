#include "models/blocks.h"

#include <cmath>

namespace nibble {

namespace {

// A linear with a bias if the checkpoint has one; it must if it is promised.
Linear declare_linear(WeightTable& table, TensorName name, int64_t N, int64_t K, bool bias_promised,
                      int permuted_heads = 0) {
  const TensorName bias{name.hf + ".bias", name.gguf + ".bias"};
  const WeightId w = table.matrix({.name = std::move(name), .N = N, .K = K, .gguf_permuted_heads = permuted_heads});
  const VectorRequest request{.name = bias, .size = N, .gguf_permuted_heads = permuted_heads};
  return {w, bias_promised ? table.vector(request) : table.vector_if_present(request)};
}

struct LayerNames {
  std::string hf, gguf;
  explicit LayerNames(int64_t layer)
      : hf(fmt::format("model.layers.{}.", layer)), gguf(fmt::format("blk.{}.", layer)) {}
  TensorName operator()(std::string_view hf_name, std::string_view gguf_name) const {
    return {hf + std::string(hf_name), gguf + std::string(gguf_name)};
  }
};

}  // namespace

Scratch make_scratch(Step& step, const DecoderConfig& c) {
  return {.x = step.buffer("x", c.hidden_size),
          .normed = step.buffer("normed", c.hidden_size),
          .q = step.buffer("q", c.num_heads * c.head_dim),
          .k = step.buffer("k", c.num_kv_heads * c.head_dim),
          .v = step.buffer("v", c.num_kv_heads * c.head_dim),
          .attended = step.buffer("attended", c.num_heads * c.head_dim),
          .gate = step.buffer("gate", c.intermediate_size),
          .up = step.buffer("up", c.intermediate_size),
          .hidden = step.buffer("hidden", c.intermediate_size)};
}

AttentionWeights declare_attention(WeightTable& table, const DecoderConfig& c, int64_t layer, LayerStyle style) {
  const LayerNames name(layer);
  const int64_t q_width = c.num_heads * c.head_dim, kv_width = c.num_kv_heads * c.head_dim;
  const auto heads = [&](int64_t count) { return style.gguf_permutes_heads ? static_cast<int>(count) : 0; };
  AttentionWeights w;
  w.norm = table.vector({.name = name("input_layernorm.weight", "attn_norm.weight"), .size = c.hidden_size});
  w.q = declare_linear(table, name("self_attn.q_proj", "attn_q"), q_width, c.hidden_size, c.attention_bias,
                       heads(c.num_heads));
  w.k = declare_linear(table, name("self_attn.k_proj", "attn_k"), kv_width, c.hidden_size, c.attention_bias,
                       heads(c.num_kv_heads));
  w.v = declare_linear(table, name("self_attn.v_proj", "attn_v"), kv_width, c.hidden_size, c.attention_bias);
  w.o = declare_linear(table, name("self_attn.o_proj", "attn_output"), c.hidden_size, q_width, c.attention_bias);
  if (style.normalise_heads) {
    w.q_norm = table.vector({.name = name("self_attn.q_norm.weight", "attn_q_norm.weight"), .size = c.head_dim});
    w.k_norm = table.vector({.name = name("self_attn.k_norm.weight", "attn_k_norm.weight"), .size = c.head_dim});
  }
  return w;
}

MlpWeights declare_mlp(WeightTable& table, const DecoderConfig& c, int64_t layer) {
  const LayerNames name(layer);
  MlpWeights w;
  w.norm = table.vector({.name = name("post_attention_layernorm.weight", "ffn_norm.weight"), .size = c.hidden_size});
  w.gate = declare_linear(table, name("mlp.gate_proj", "ffn_gate"), c.intermediate_size, c.hidden_size, c.mlp_bias);
  w.up = declare_linear(table, name("mlp.up_proj", "ffn_up"), c.intermediate_size, c.hidden_size, c.mlp_bias);
  w.down = declare_linear(table, name("mlp.down_proj", "ffn_down"), c.hidden_size, c.intermediate_size, c.mlp_bias);
  return w;
}

void attention_block(Step& step, const DecoderConfig& c, const AttentionWeights& w, const Scratch& s, int rotation,
                     int layer) {
  step.rms_norm({.x = s.x, .weight = w.norm, .out = s.normed, .eps = c.rms_norm_eps});
  step.linear({.x = s.normed, .w = w.q.w, .bias = w.q.bias, .out = s.q});
  step.linear({.x = s.normed, .w = w.k.w, .bias = w.k.bias, .out = s.k});
  step.linear({.x = s.normed, .w = w.v.w, .bias = w.v.bias, .out = s.v});
  if (w.q_norm)
    step.rms_norm({.x = s.q, .weight = w.q_norm, .out = s.q, .eps = c.rms_norm_eps, .num_heads = c.num_heads});
  if (w.k_norm)
    step.rms_norm({.x = s.k, .weight = w.k_norm, .out = s.k, .eps = c.rms_norm_eps, .num_heads = c.num_kv_heads});
  step.rope({.x = s.q, .num_heads = c.num_heads, .head_dim = c.head_dim, .rotation = rotation});
  step.rope({.x = s.k, .num_heads = c.num_kv_heads, .head_dim = c.head_dim, .rotation = rotation});
  step.kv_append({.k = s.k, .v = s.v, .layer = layer});
  step.attention({.q = s.q,
                  .layer = layer,
                  .num_heads = c.num_heads,
                  .num_kv_heads = c.num_kv_heads,
                  .head_dim = c.head_dim,
                  .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                  .out = s.attended});
  step.linear({.x = s.attended, .w = w.o.w, .bias = w.o.bias, .out = s.x, .accumulate = true});
}

void mlp_block(Step& step, const DecoderConfig& c, const MlpWeights& w, const Scratch& s) {
  step.rms_norm({.x = s.x, .weight = w.norm, .out = s.normed, .eps = c.rms_norm_eps});
  step.linear({.x = s.normed, .w = w.gate.w, .bias = w.gate.bias, .out = s.gate});
  step.linear({.x = s.normed, .w = w.up.w, .bias = w.up.bias, .out = s.up});
  step.swiglu({.gate = s.gate, .up = s.up, .out = s.hidden});
  step.linear({.x = s.hidden, .w = w.down.w, .bias = w.down.bias, .out = s.x, .accumulate = true});
}

void output_block(Step& step, const DecoderConfig& c, WeightId norm, WeightId output, const Scratch& s) {
  const Slice last = step.buffer("last", c.hidden_size, Rows::logits);
  const Slice last_normed = step.buffer("last_normed", c.hidden_size, Rows::logits);
  step.logits = step.buffer("logits", c.vocab_size, Rows::logits);
  step.select_logits({.x = s.x, .out = last});
  step.rms_norm({.x = last, .weight = norm, .out = last_normed, .eps = c.rms_norm_eps});
  step.linear({.x = last_normed, .w = output, .out = step.logits});
}

}  // namespace nibble
