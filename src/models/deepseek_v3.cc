// DeepSeek-V3 and R1: latent attention, experts in groups, YaRN that stretches the scores, too. `model_type` deepseek_v3,
// GGUF architecture deepseek2.
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/moe_config.h"

namespace nibble {

std::unique_ptr<Model> make_deepseek_v3(const Checkpoint& checkpoint, WeightSource& source) {
  DecoderConfig c = read_decoder_config(checkpoint);
  c.mla = read_mla_config(checkpoint, c);
  c.moe = read_sigmoid_experts(checkpoint, c);
  return std::make_unique<Decoder>(std::move(c), source, LayerStyle{});
}

}  // namespace nibble
