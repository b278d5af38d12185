// The importers: from a checkpoint's tensors in any dialect to canonical weights.
#pragma once

#include <memory>

#include "checkpoint/checkpoint.h"
#include "weights/source.h"

namespace nibble {

// A source over an open checkpoint, which it shares. Reads its quantization configuration at once; throws InputError
// for a method that is not read.
std::unique_ptr<WeightSource> make_importer(std::shared_ptr<const Checkpoint> checkpoint);

}  // namespace nibble
