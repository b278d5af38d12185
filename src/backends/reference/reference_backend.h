// The reference backend: executes a step op by op, in order, on one thread, with the loops of reference_ops.h. It keeps
// weights as they are in the file and converts nothing. Slow; the specification of every other backend.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace nibble {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace nibble
