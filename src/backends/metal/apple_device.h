// Apple's Metal as a device (docs/metal.md).
#pragma once

#include "backends/metal/metal_device.h"

namespace nibble {

// The default GPU. Throws InputError if this machine has none, RunError if its compiler does not take the shaders.
std::unique_ptr<MetalDevice> make_apple_device();

}  // namespace nibble
