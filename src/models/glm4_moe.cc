// GLM-4.5 to 4.7: biases on q, k and v alone, half of each head rotated, heads normalised in the large one; experts with
// sigmoid weights, a correction bias and a shared expert after some dense layers. `model_type` glm4_moe, GGUF
// architecture glm4moe.
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/moe_config.h"

namespace nibble {

std::unique_ptr<Model> make_glm4_moe(const Checkpoint& checkpoint, WeightSource& source) {
  DecoderConfig c = read_decoder_config(checkpoint);
  c.moe = read_sigmoid_experts(checkpoint, c);
  const bool normalise_heads = checkpoint.container == Container::gguf
                                   ? source.has_vector({.hf = {}, .gguf = "blk.0.attn_q_norm.weight"})
                                   : config_reader(checkpoint).boolean("use_qk_norm", false);
  return std::make_unique<Decoder>(
      std::move(c), source,
      LayerStyle{.normalise_heads = normalise_heads, .output_bias = false, .gguf_mlp_norm = "post_attention_norm"});
}

}  // namespace nibble
