// What the blocks record: ops on the shared buffers.
#include "models/blocks.h"

#include <algorithm>
#include <cmath>

namespace nibble {

namespace {

// The norms inside latent attention have this epsilon, whatever the configuration says of the others.
constexpr float kLatentNormEps = 1e-6f;

}  // namespace

Scratch make_scratch(Step& step, const DecoderConfig& c) {
  Scratch s;
  s.x = step.buffer("x", c.hidden_size);
  s.normed = step.buffer("normed", c.hidden_size);
  if (c.mla) {
    const MlaConfig& mla = *c.mla;
    s.q = step.buffer("q", c.num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim));
    if (mla.q_lora_rank > 0) {
      s.q_a = step.buffer("q_a", mla.q_lora_rank);
      s.q_a_normed = step.buffer("q_a_normed", mla.q_lora_rank);
    }
    s.latent = step.buffer("latent", mla.kv_lora_rank + mla.qk_rope_head_dim);
    s.q_latent = step.buffer("q_latent", c.num_heads * mla.kv_lora_rank);
    s.out_latent = step.buffer("out_latent", c.num_heads * mla.kv_lora_rank);
    s.attended = step.buffer("attended", c.num_heads * mla.v_head_dim);
  } else {
    s.q = step.buffer("q", c.num_heads * c.head_dim);
    s.k = step.buffer("k", c.num_kv_heads * c.head_dim);
    s.v = step.buffer("v", c.num_kv_heads * c.head_dim);
    s.attended = step.buffer("attended", c.num_heads * c.head_dim);
  }
  bool has_dense = false;
  for (int64_t l = 0; l < c.num_layers; l++) has_dense = has_dense || !c.is_sparse(l);
  const int64_t width = std::max(has_dense ? c.intermediate_size : 0, c.moe ? c.moe->shared_intermediate_size : 0);
  if (width > 0) {
    s.gate = step.buffer("gate", width);
    s.up = step.buffer("up", width);
    s.hidden = step.buffer("hidden", width);
  }
  if (c.moe) {
    s.router_logits = step.buffer("router_logits", c.moe->num_experts);
    s.experts = step.buffer("experts", c.moe->top_k);
    s.expert_weights = step.buffer("expert_weights", c.moe->top_k);
    s.expert_hidden = step.buffer("expert_hidden", c.moe->top_k * c.moe->intermediate_size);
  }
  return s;
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
                  .out = s.attended,
                  .window = c.window(layer),
                  .sinks = w.sinks});
  step.linear({.x = s.attended, .w = w.o.w, .bias = w.o.bias, .out = s.x, .accumulate = true});
}

void mla_block(Step& step, const DecoderConfig& c, const MlaWeights& w, const Scratch& s, int rotation, int layer) {
  const MlaConfig& mla = *c.mla;
  const int64_t latent_dim = mla.kv_lora_rank, nope = mla.qk_nope_head_dim, rope = mla.qk_rope_head_dim;
  const Slice latent = s.latent.columns(0, latent_dim), k_rope = s.latent.columns(latent_dim, rope);
  step.rms_norm({.x = s.x, .weight = w.norm, .out = s.normed, .eps = c.rms_norm_eps});
  step.linear({.x = s.normed, .w = w.kv_a.w, .bias = w.kv_a.bias, .out = s.latent});
  if (w.q_a.w) {
    step.linear({.x = s.normed, .w = w.q_a.w, .bias = w.q_a.bias, .out = s.q_a});
    step.rms_norm({.x = s.q_a, .weight = w.q_a_norm, .out = s.q_a_normed, .eps = kLatentNormEps});
    step.linear({.x = s.q_a_normed, .w = w.q_b.w, .out = s.q});
  } else {
    step.linear({.x = s.normed, .w = w.q_b.w, .out = s.q});
  }
  // The key's ops need nothing of q's, nor head_linear what is rotated: a backend can run them side by side.
  step.rms_norm({.x = latent, .weight = w.kv_a_norm, .out = latent, .eps = kLatentNormEps});
  step.rope({.x = k_rope, .num_heads = 1, .head_dim = rope, .rotation = rotation, .interleaved = mla.rope_interleave});
  step.kv_append({.k = s.latent, .v = {}, .layer = layer});
  step.rope({.x = s.q,
             .num_heads = c.num_heads,
             .head_dim = nope + rope,
             .rotation = rotation,
             .first = nope,
             .interleaved = mla.rope_interleave});
  step.head_linear({.x = s.q, .w = w.k_b, .num_heads = c.num_heads, .out = s.q_latent, .K = nope});
  step.latent_attention({.q_latent = s.q_latent,
                         .q = s.q,
                         .layer = layer,
                         .num_heads = c.num_heads,
                         .latent_dim = latent_dim,
                         .rope_dim = rope,
                         .scale = mla.scale,
                         .out = s.out_latent});
  step.head_linear({.x = s.out_latent, .w = w.v_b, .num_heads = c.num_heads, .out = s.attended});
  step.linear({.x = s.attended, .w = w.o.w, .bias = w.o.bias, .out = s.x, .accumulate = true});
}

void mlp_block(Step& step, const DecoderConfig& c, const MlpWeights& w, const Scratch& s) {
  const int64_t I = c.intermediate_size;
  const Slice gate = s.gate.columns(0, I), up = s.up.columns(0, I), hidden = s.hidden.columns(0, I);
  step.rms_norm({.x = s.x, .weight = w.norm, .out = s.normed, .eps = c.rms_norm_eps});
  step.linear({.x = s.normed, .w = w.gate.w, .bias = w.gate.bias, .out = gate});
  step.linear({.x = s.normed, .w = w.up.w, .bias = w.up.bias, .out = up});
  step.swiglu({.gate = gate, .up = up, .out = hidden});
  step.linear({.x = hidden, .w = w.down.w, .bias = w.down.bias, .out = s.x, .accumulate = true});
}

void moe_block(Step& step, const DecoderConfig& c, const MoeWeights& w, const Scratch& s) {
  const MoeConfig& moe = *c.moe;
  step.rms_norm({.x = s.x, .weight = w.norm, .out = s.normed, .eps = c.rms_norm_eps});
  step.linear({.x = s.normed, .w = w.router.w, .bias = w.router.bias, .out = s.router_logits});
  step.route({.logits = s.router_logits,
              .correction_bias = w.correction_bias,
              .scores = moe.scores,
              .num_groups = moe.num_groups,
              .top_groups = moe.top_groups,
              .normalise = moe.normalise,
              .scale = moe.scale,
              .experts = s.experts,
              .expert_weights = s.expert_weights});
  const int64_t shared = moe.shared_intermediate_size;  // 0: there is no such expert
  const Slice hidden = s.hidden.columns(0, shared);
  if (shared > 0) {
    // It needs nothing of the others: a backend can run each part beside one of theirs.
    const Slice gate = s.gate.columns(0, shared), up = s.up.columns(0, shared);
    step.linear({.x = s.normed, .w = w.shared_gate.w, .out = gate});
    step.linear({.x = s.normed, .w = w.shared_up.w, .out = up});
    step.swiglu({.gate = gate, .up = up, .out = hidden});
  }
  step.moe_gate_up({.x = s.normed,
                    .gate = w.gate.w,
                    .up = w.up.w,
                    .gate_bias = w.gate.bias,
                    .up_bias = w.up.bias,
                    .experts = s.experts,
                    .activation = moe.activation,
                    .alpha = moe.alpha,
                    .limit = moe.limit,
                    .out = s.expert_hidden});
  if (shared > 0) step.linear({.x = hidden, .w = w.shared_down.w, .out = s.x, .accumulate = true});
  step.moe_down({.x = s.expert_hidden,
                 .down = w.down.w,
                 .bias = w.down.bias,
                 .experts = s.experts,
                 .expert_weights = s.expert_weights,
                 .out = s.x});
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
