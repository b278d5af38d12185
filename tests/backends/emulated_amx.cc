// The kernels for AMX over emulated tiles. This follows the rules of linear_kernel.h: it is compiled for AVX-512.
#include "backends/cpu/amx_linear.h"
#include "backends/emulated_tiles.h"

namespace nibble {

extern const CpuKernels kEmulatedAmxKernels;
constinit const CpuKernels kEmulatedAmxKernels = tiles_kernels<IntegerTiles<EmulatedInstructions>>("amx, emulated");

}  // namespace nibble
