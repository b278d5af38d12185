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
};

struct MlpWeights {
  WeightId norm;
  Linear gate, up, down;
};

// The buffers that all layers of a step share.
struct Scratch {
  Slice x;       // [M, hidden_size], the residual stream
  Slice normed;  // [M, hidden_size]
  Slice q, k, v, attended;
  Slice gate, up, hidden;  // [M, intermediate_size]
};
Scratch make_scratch(Step& step, const DecoderConfig& c);

// What differs between architectures that are otherwise alike.
struct LayerStyle {
  bool normalise_heads = false;      // q and k are normalised head by head before the rotation
  bool gguf_permutes_heads = false;  // GGUF files hold q and k with rotation pairs next to each other
};

AttentionWeights declare_attention(WeightTable& table, const DecoderConfig& c, int64_t layer, LayerStyle style);
MlpWeights declare_mlp(WeightTable& table, const DecoderConfig& c, int64_t layer);

// x += o(attention(rotate(q, k of rms_norm(x)), v)).
void attention_block(Step& step, const DecoderConfig& c, const AttentionWeights& w, const Scratch& s, int rotation,
                     int layer);

// x += down(silu(gate) * up), gate and up of rms_norm(x).
void mlp_block(Step& step, const DecoderConfig& c, const MlpWeights& w, const Scratch& s);

// The logits of the wanted tokens: output(rms_norm(x)).
void output_block(Step& step, const DecoderConfig& c, WeightId norm, WeightId output, const Scratch& s);

}  // namespace nibble
