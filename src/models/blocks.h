// The blocks that decoders are made of: each asks for its weights once, and records its ops into a step.
#pragma once

#include <string>

#include "models/config.h"
#include "ops/step.h"
#include "weights/weight_table.h"

namespace nibble {

struct Linear {
  WeightId w, bias;
};

struct AttentionWeights {
  WeightId norm;
  Linear q, k, v, o;
  WeightId q_norm, k_norm;  // none in models that do not normalise heads
  WeightId sinks;           // none in models without
};

// Latent attention. A head's key is k_b * latent and its value v_b * latent; k_b is absorbed into the query instead and
// v_b into the output, so that only latents are cached and no key or value is ever made.
struct MlaWeights {
  WeightId norm;
  Linear q_a, q_b;  // q_a is none if queries come straight from the hidden state
  WeightId q_a_norm;
  Linear kv_a;  // to [kv_lora_rank latent values, qk_rope_head_dim rotated ones]
  WeightId kv_a_norm;
  WeightId k_b;  // [heads, kv_lora_rank, qk_nope_head_dim]
  WeightId v_b;  // [heads, v_head_dim, kv_lora_rank]
  Linear o;
};

struct MlpWeights {
  WeightId norm;
  Linear gate, up, down;
};

struct MoeWeights {
  WeightId norm;
  Linear router;
  WeightId correction_bias;                    // none in models without
  Linear gate, up, down;                       // of all experts: [E, N, K], biases [E, N]
  Linear shared_gate, shared_up, shared_down;  // none in models without a shared expert
};

// The buffers that all layers of a step share; those that the model has no use for are none.
struct Scratch {
  Slice x;       // [M, hidden_size], the residual stream
  Slice normed;  // [M, hidden_size]
  Slice q, k, v, attended;
  Slice gate, up, hidden;                               // [M, intermediate_size]
  Slice router_logits, experts, expert_weights;         // [M, num_experts], [M, top_k] twice
  Slice expert_hidden;                                  // [M, top_k * intermediate_size of an expert]
  Slice q_a, q_a_normed, latent, q_latent, out_latent;  // of MlaWeights; latent is what is cached
};
Scratch make_scratch(Step& step, const DecoderConfig& c);

// The Hugging Face names of a mixture's parts in a layer ("mlp.gate"); those of GGUF files are always the same.
struct MoeNames {
  std::string_view router = "mlp.gate", experts = "mlp.experts", gate = "gate_proj", up = "up_proj", down = "down_proj";
};

// What differs between architectures that are otherwise alike.
struct LayerStyle {
  bool normalise_heads = false;      // q and k are normalised head by head before the rotation
  bool gguf_permutes_heads = false;  // GGUF files hold q and k with rotation pairs next to each other
  bool output_bias = true;           // attention_bias promises one for the output projection, too
  bool sinks = false;                // attention has a sink for each head
  bool expert_biases = false;        // the router and all experts have biases
  std::string_view gguf_mlp_norm = "ffn_norm";
  MoeNames moe = {};
};

AttentionWeights declare_attention(WeightTable& table, const DecoderConfig& c, int64_t layer, const LayerStyle& style);
MlaWeights declare_mla(WeightTable& table, const DecoderConfig& c, int64_t layer);
MlpWeights declare_mlp(WeightTable& table, const DecoderConfig& c, int64_t layer, const LayerStyle& style);
MoeWeights declare_moe(WeightTable& table, const DecoderConfig& c, int64_t layer, const LayerStyle& style);

// x += o(attention(rotate(q, k of rms_norm(x)), v)).
void attention_block(Step& step, const DecoderConfig& c, const AttentionWeights& w, const Scratch& s, int rotation,
                     int layer);
void mla_block(Step& step, const DecoderConfig& c, const MlaWeights& w, const Scratch& s, int rotation, int layer);

// x += down(silu(gate) * up), gate and up of rms_norm(x).
void mlp_block(Step& step, const DecoderConfig& c, const MlpWeights& w, const Scratch& s);

// x += MoE(rms_norm(x)): route each token to top_k experts, run them, add their weighted sum; and the shared expert's.
void moe_block(Step& step, const DecoderConfig& c, const MoeWeights& w, const Scratch& s);

// The logits of the wanted tokens: output(rms_norm(x)).
void output_block(Step& step, const DecoderConfig& c, WeightId norm, WeightId output, const Scratch& s);

}  // namespace nibble
