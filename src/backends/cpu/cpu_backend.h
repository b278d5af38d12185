// The CPU backend: weights in 16 interleaved rows, activations in 15 bits, a pool of workers with a barrier between
// phases, kernels chosen once for the instruction sets that the machine has.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace nibble {

// `num_threads` workers, the calling thread among them.
std::unique_ptr<Backend> make_cpu_backend(int num_threads);

}  // namespace nibble
