// Mixtral: a Llama whose layers are all mixtures of experts; the weights of the chosen ones are normalised. `model_type`
// mixtral, GGUF architecture llama.
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/moe_config.h"

namespace nibble {

std::unique_ptr<Model> make_mixtral(const Checkpoint& checkpoint, WeightSource& source) {
  DecoderConfig c = read_decoder_config(checkpoint);
  c.moe = read_softmax_experts(checkpoint, c, true);
  const int64_t window = config_reader(checkpoint).count("sliding_window", kLargestContext, 0);
  if (window > 0) c.windows.assign(static_cast<size_t>(c.num_layers), window);
  return std::make_unique<Decoder>(std::move(c), source,
                                   LayerStyle{.gguf_permutes_heads = true,
                                              .moe = {.router = "block_sparse_moe.gate",
                                                      .experts = "block_sparse_moe.experts",
                                                      .gate = "w1",
                                                      .up = "w3",
                                                      .down = "w2"}});
}

}  // namespace nibble
