// Qwen3, dense: heads of q and k are normalised before the rotation. `model_type` qwen3, GGUF architecture qwen3.
#include "models/architectures.h"
#include "models/decoder.h"

namespace nibble {

std::unique_ptr<Model> make_qwen3(const Checkpoint& checkpoint, WeightSource& source) {
  return std::make_unique<Decoder>(read_decoder_config(checkpoint), source, LayerStyle{.normalise_heads = true});
}

}  // namespace nibble
