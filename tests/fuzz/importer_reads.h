// Asks an importer for everything that a checkpoint holds, in the shapes that its tensors suggest.
#pragma once

#include <memory>

#include "checkpoint/checkpoint.h"

namespace nibble {

void read_everything(const std::shared_ptr<const Checkpoint>& checkpoint);

}  // namespace nibble
