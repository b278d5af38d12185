// Llama 2, 3 and what has the same graph (SmolLM2): `model_type` llama, GGUF architecture llama. A GGUF file of that name
// that counts experts is a Mixtral.
#include "models/architectures.h"
#include "models/decoder.h"

namespace nibble {

std::unique_ptr<Model> make_llama(const Checkpoint& checkpoint, WeightSource& source) {
  if (checkpoint.container == Container::gguf && config_reader(checkpoint).count("expert_count", kMostExperts, 0) > 0)
    return make_mixtral(checkpoint, source);
  return std::make_unique<Decoder>(read_decoder_config(checkpoint), source, LayerStyle{.gguf_permutes_heads = true});
}

}  // namespace nibble
