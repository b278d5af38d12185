// All weights of a model, read from its checkpoint and packed for a backend.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "ops/backend.h"
#include "weights/weight_table.h"

namespace nibble {

using PackedWeights = std::vector<std::unique_ptr<PackedWeight>>;  // by WeightId
using LoadProgress = std::function<void(int64_t done_bytes, int64_t all_bytes)>;

// Throws what the source and the backend throw. `packed`, if given, hears of each weight, in the table's order.
PackedWeights pack_weights(const WeightTable& table, Backend& backend, const LoadProgress& progress,
                           const std::function<void(const PackedWeight&)>& packed = {});

}  // namespace nibble
