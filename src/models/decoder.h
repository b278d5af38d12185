// Decoders: in every layer an attention and, after it, an MLP or a mixture of experts, each behind an RMSNorm and added
// to the residual stream. Which of them a layer has, the configuration says.
#pragma once

#include <variant>

#include "models/blocks.h"
#include "models/model.h"

namespace nibble {

class Decoder final : public Model {
 public:
  Decoder(DecoderConfig c, WeightSource& source, const LayerStyle& style);
  Step forward(int64_t M, LogitsFor logits_for) const override;

 private:
  struct Layer {
    std::variant<AttentionWeights, MlaWeights> attention;
    std::variant<MlpWeights, MoeWeights> mlp;
  };
  Layer declare_layer(int64_t layer, const LayerStyle& style);

  WeightId embedding_, norm_, output_;
  std::vector<Layer> layers_;
};

}  // namespace nibble
