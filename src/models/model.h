// A model: what its weights are and what a step of it does. It knows no backend and holds no weights.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "ops/backend.h"
#include "weights/weight_table.h"

namespace nibble {

class Model {
 public:
  virtual ~Model() = default;

  // Records a step for M tokens. Token ids, positions and sequences come at run time.
  virtual Step forward(int64_t M, LogitsFor logits_for) const = 0;

  const DecoderConfig config;
  WeightTable weights;
  std::vector<KvLayer> kv_layers;

 protected:
  Model(DecoderConfig c, WeightSource& source) : config(std::move(c)), weights(source) {}
};

// The model of the architecture that the checkpoint names, its weight table filled from `source`. Throws InputError for
// an unknown architecture, listing the known ones, and for whatever is missing.
std::unique_ptr<Model> make_model(const Checkpoint& checkpoint, WeightSource& source);

}  // namespace nibble
