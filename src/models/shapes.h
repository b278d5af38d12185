// Published models by their shape alone, for benchmarks with random weights: no download, the same work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

std::vector<std::string_view> shape_names();

// A checkpoint without tensors whose config.json is that of the published model, with `num_layers` layers (0: all).
// Throws InputError for an unknown name, listing the known ones.
Checkpoint shape_checkpoint(const std::string& name, int64_t num_layers);

}  // namespace nibble
