// Decoders of the Llama family: RMSNorm, rotary GQA attention and SwiGLU, in that order, in every layer.
#pragma once

#include "models/blocks.h"
#include "models/model.h"

namespace nibble {

class DenseDecoder final : public Model {
 public:
  DenseDecoder(DecoderConfig c, WeightSource& source, LayerStyle style);
  Step forward(int64_t M, LogitsFor logits_for) const override;

 private:
  struct Layer {
    AttentionWeights attention;
    MlpWeights mlp;
  };
  WeightId embedding_, norm_, output_;
  std::vector<Layer> layers_;
};

}  // namespace nibble
