// Llama 2, 3 and what has the same graph (SmolLM2): `model_type` llama, GGUF architecture llama.
#include "models/architectures.h"
#include "models/decoder.h"

namespace nibble {

std::unique_ptr<Model> make_llama(const Checkpoint& checkpoint, WeightSource& source) {
  return std::make_unique<DenseDecoder>(read_decoder_config(checkpoint), source,
                                        LayerStyle{.gguf_permutes_heads = true});
}

}  // namespace nibble
