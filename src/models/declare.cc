// What the blocks ask of the weight table: names in both worlds, shapes, and which biases there must be.
#include "models/blocks.h"

namespace nibble {

namespace {

enum class Bias : uint8_t { none, if_present, promised };

// A linear with a bias if the checkpoint has one; it must if it is promised.
Linear declare_linear(WeightTable& table, TensorName name, int64_t N, int64_t K, Bias bias, int permuted_heads = 0) {
  const VectorRequest request{
      .name = {name.hf + ".bias", name.gguf + ".bias"}, .size = N, .gguf_permuted_heads = permuted_heads};
  const WeightId w = table.matrix({.name = std::move(name), .N = N, .K = K, .gguf_permuted_heads = permuted_heads});
  switch (bias) {
    case Bias::none: return {w, {}};
    case Bias::if_present: return {w, table.vector_if_present(request)};
    case Bias::promised: return {w, table.vector(request)};
  }
  return {};
}

// The same for one linear of each expert.
Linear declare_experts(WeightTable& table, TensorName name, int64_t E, int64_t N, int64_t K, bool has_bias) {
  const VectorRequest bias{.name = {name.hf + ".bias", name.gguf + ".bias"}, .size = N, .E = E, .is_experts = true};
  const WeightId w = table.matrix({.name = std::move(name), .E = E, .N = N, .K = K, .is_experts = true});
  return {w, has_bias ? table.vector(bias) : WeightId{}};
}

Bias promise(bool promised) { return promised ? Bias::promised : Bias::if_present; }

struct LayerNames {
  std::string hf, gguf;
  explicit LayerNames(int64_t layer)
      : hf(fmt::format("model.layers.{}.", layer)), gguf(fmt::format("blk.{}.", layer)) {}
  TensorName operator()(std::string_view hf_name, std::string_view gguf_name) const {
    return {hf + std::string(hf_name), gguf + std::string(gguf_name)};
  }
};

WeightId declare_mlp_norm(WeightTable& table, const DecoderConfig& c, const LayerNames& name, const LayerStyle& style) {
  return table.vector({.name = name("post_attention_layernorm.weight", fmt::format("{}.weight", style.gguf_mlp_norm)),
                       .size = c.hidden_size});
}

}  // namespace

AttentionWeights declare_attention(WeightTable& table, const DecoderConfig& c, int64_t layer, const LayerStyle& style) {
  const LayerNames name(layer);
  const int64_t q_width = c.num_heads * c.head_dim, kv_width = c.num_kv_heads * c.head_dim;
  const Bias bias = promise(c.attention_bias);
  const auto heads = [&](int64_t count) { return style.gguf_permutes_heads ? static_cast<int>(count) : 0; };
  AttentionWeights w;
  w.norm = table.vector({.name = name("input_layernorm.weight", "attn_norm.weight"), .size = c.hidden_size});
  w.q = declare_linear(table, name("self_attn.q_proj", "attn_q"), q_width, c.hidden_size, bias, heads(c.num_heads));
  w.k = declare_linear(table, name("self_attn.k_proj", "attn_k"), kv_width, c.hidden_size, bias, heads(c.num_kv_heads));
  w.v = declare_linear(table, name("self_attn.v_proj", "attn_v"), kv_width, c.hidden_size, bias);
  w.o = declare_linear(table, name("self_attn.o_proj", "attn_output"), c.hidden_size, q_width,
                       promise(c.attention_bias && style.output_bias));
  if (style.normalise_heads) {
    w.q_norm = table.vector({.name = name("self_attn.q_norm.weight", "attn_q_norm.weight"), .size = c.head_dim});
    w.k_norm = table.vector({.name = name("self_attn.k_norm.weight", "attn_k_norm.weight"), .size = c.head_dim});
  }
  if (style.sinks) w.sinks = table.vector({.name = name("self_attn.sinks", "attn_sinks.weight"), .size = c.num_heads});
  return w;
}

MlaWeights declare_mla(WeightTable& table, const DecoderConfig& c, int64_t layer) {
  const LayerNames name(layer);
  const MlaConfig& mla = *c.mla;
  const int64_t nope = mla.qk_nope_head_dim, v = mla.v_head_dim, latent = mla.kv_lora_rank;
  const int64_t q_width = c.num_heads * (nope + mla.qk_rope_head_dim);
  const Bias bias = promise(c.attention_bias);
  MlaWeights w;
  w.norm = table.vector({.name = name("input_layernorm.weight", "attn_norm.weight"), .size = c.hidden_size});
  if (mla.q_lora_rank > 0) {
    w.q_a = declare_linear(table, name("self_attn.q_a_proj", "attn_q_a"), mla.q_lora_rank, c.hidden_size, bias);
    w.q_a_norm =
        table.vector({.name = name("self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"), .size = mla.q_lora_rank});
    w.q_b = declare_linear(table, name("self_attn.q_b_proj", "attn_q_b"), q_width, mla.q_lora_rank, Bias::none);
  } else {
    w.q_b = declare_linear(table, name("self_attn.q_proj", "attn_q"), q_width, c.hidden_size, Bias::none);
  }
  w.kv_a = declare_linear(table, name("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"), latent + mla.qk_rope_head_dim,
                          c.hidden_size, bias);
  w.kv_a_norm =
      table.vector({.name = name("self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight"), .size = latent});
  w.k_b = table.matrix(
      {.name = name("self_attn.kv_b_proj", "attn_kv_b"),
       .E = c.num_heads,
       .N = latent,
       .K = nope,
       .is_experts = true,
       .heads = {
           .alone = name("self_attn.embed_q", "attn_k_b"), .head_rows = nope + v, .first_row = 0, .transposed = true}});
  w.v_b = table.matrix(
      {.name = name("self_attn.kv_b_proj", "attn_kv_b"),
       .E = c.num_heads,
       .N = v,
       .K = latent,
       .is_experts = true,
       .heads = {.alone = name("self_attn.unembed_out", "attn_v_b"), .head_rows = nope + v, .first_row = nope}});
  w.o = declare_linear(table, name("self_attn.o_proj", "attn_output"), c.hidden_size, c.num_heads * v, bias);
  return w;
}

MlpWeights declare_mlp(WeightTable& table, const DecoderConfig& c, int64_t layer, const LayerStyle& style) {
  const LayerNames name(layer);
  MlpWeights w;
  const Bias bias = promise(c.mlp_bias);
  w.norm = declare_mlp_norm(table, c, name, style);
  w.gate = declare_linear(table, name("mlp.gate_proj", "ffn_gate"), c.intermediate_size, c.hidden_size, bias);
  w.up = declare_linear(table, name("mlp.up_proj", "ffn_up"), c.intermediate_size, c.hidden_size, bias);
  w.down = declare_linear(table, name("mlp.down_proj", "ffn_down"), c.hidden_size, c.intermediate_size, bias);
  return w;
}

MoeWeights declare_moe(WeightTable& table, const DecoderConfig& c, int64_t layer, const LayerStyle& style) {
  const LayerNames name(layer);
  const MoeConfig& moe = *c.moe;
  const int64_t H = c.hidden_size, I = moe.intermediate_size;
  const auto experts = [&](std::string_view hf, std::string_view gguf, int64_t N, int64_t K) {
    return declare_experts(table, name(fmt::format("{}.*.{}", style.moe.experts, hf), gguf), moe.num_experts, N, K,
                           style.expert_biases);
  };
  MoeWeights w;
  w.norm = declare_mlp_norm(table, c, name, style);
  w.router = declare_linear(table, name(style.moe.router, "ffn_gate_inp"), moe.num_experts, H,
                            style.expert_biases ? Bias::promised : Bias::none);
  if (moe.scores == RouterScores::sigmoid)
    w.correction_bias =
        table.vector({.name = name(fmt::format("{}.e_score_correction_bias", style.moe.router), "exp_probs_b.bias"),
                      .size = moe.num_experts});
  w.gate = experts(style.moe.gate, "ffn_gate_exps", I, H);
  w.up = experts(style.moe.up, "ffn_up_exps", I, H);
  w.down = experts(style.moe.down, "ffn_down_exps", H, I);
  if (const int64_t shared = moe.shared_intermediate_size; shared > 0) {
    w.shared_gate =
        declare_linear(table, name("mlp.shared_experts.gate_proj", "ffn_gate_shexp"), shared, H, Bias::none);
    w.shared_up = declare_linear(table, name("mlp.shared_experts.up_proj", "ffn_up_shexp"), shared, H, Bias::none);
    w.shared_down =
        declare_linear(table, name("mlp.shared_experts.down_proj", "ffn_down_shexp"), H, shared, Bias::none);
  }
  return w;
}

}  // namespace nibble
