// Attention for AMX over emulated tiles, compiled for AVX-512.
#include "backends/cpu/attend_tiles.h"
#include "backends/emulated_tiles.h"

namespace nibble {

extern const FloatKernels kEmulatedAmxFloatKernels;
constinit const FloatKernels kEmulatedAmxFloatKernels =
    with_tiles<EmulatedInstructions>(float_kernels_named("amx, emulated"));

}  // namespace nibble
