#include "engine/pack_weights.h"

#include <utility>

namespace nibble {

PackedWeights pack_weights(const WeightTable& table, Backend& backend, const LoadProgress& progress,
                           const std::function<void(const PackedWeight&)>& packed) {
  PackedWeights weights(table.entries().size());
  const auto keep = [&](WeightId id, std::unique_ptr<PackedWeight> weight) {
    if (packed) packed(*weight);
    weights[static_cast<size_t>(id.index)] = std::move(weight);
  };
  load_weights(table,
               {.matrix = [&](WeightId id, const CanonicalWeight& w) { keep(id, backend.pack(w)); },
                .vector = [&](WeightId id, std::span<const float> v) { keep(id, backend.pack_vector(v)); },
                .checks_floats = true},
               progress);
  return weights;
}

}  // namespace nibble
