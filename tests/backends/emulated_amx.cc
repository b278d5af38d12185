// The kernels for AMX over emulated tiles. This follows the rules of linear_kernel.h: it is compiled for AVX-512.
#include "backends/cpu/amx_linear.h"
#include "backends/emulated_tiles.h"

namespace nibble {

extern const CpuKernels kEmulatedAmxKernels, kEmulatedAmxBf16Kernels;
constinit const CpuKernels kEmulatedAmxKernels = tiles_kernels<EmulatedInstructions>("amx, emulated");
constinit const CpuKernels kEmulatedAmxBf16Kernels = float_tiles_kernels<EmulatedInstructions>("amx_bf16, emulated");

}  // namespace nibble
