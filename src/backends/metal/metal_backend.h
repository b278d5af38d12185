// The Metal backend: rows of weights as they are in the file, float32 activations, one command buffer a step. On Linux its
// device is the executor (executor_device.h).
#pragma once

#include <memory>

#include "backends/metal/metal_device.h"
#include "ops/backend.h"

namespace nibble {

// Packs weights with `num_threads` workers.
std::unique_ptr<Backend> make_metal_backend(std::unique_ptr<MetalDevice> device, int num_threads);

// On this machine's device: its GPU, or the executor with `num_threads` threads. Throws InputError if there is none.
std::unique_ptr<Backend> make_metal_backend(int num_threads);

}  // namespace nibble
