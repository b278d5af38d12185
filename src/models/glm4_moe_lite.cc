// GLM-4.7-Flash: latent attention, and experts as in glm4_moe. `model_type` glm4_moe_lite; its GGUF files say deepseek2.
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/moe_config.h"

namespace nibble {

std::unique_ptr<Model> make_glm4_moe_lite(const Checkpoint& checkpoint, WeightSource& source) {
  DecoderConfig c = read_decoder_config(checkpoint);
  c.mla = read_mla_config(checkpoint, c);
  c.moe = read_sigmoid_experts(checkpoint, c);
  return std::make_unique<Decoder>(std::move(c), source, LayerStyle{});
}

}  // namespace nibble
