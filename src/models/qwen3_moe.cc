// Qwen3-MoE: Qwen3 with experts in all layers, or in those that the configuration names. `model_type` qwen3_moe, GGUF
// architecture qwen3moe.
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/moe_config.h"

namespace nibble {

std::unique_ptr<Model> make_qwen3_moe(const Checkpoint& checkpoint, WeightSource& source) {
  DecoderConfig c = read_decoder_config(checkpoint);
  c.moe = read_softmax_experts(checkpoint, c, false);
  return std::make_unique<Decoder>(std::move(c), source, LayerStyle{.normalise_heads = true});
}

}  // namespace nibble
