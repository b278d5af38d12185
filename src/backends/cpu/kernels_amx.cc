// AMX with 8-bit integers (Sapphire Rapids and later) for many tokens, AVX-512 for few.
#include "backends/cpu/amx_linear.h"

namespace nibble {

extern const CpuKernels kAmxKernels;
constinit const CpuKernels kAmxKernels = tiles_kernels<IntegerTiles<AmxInstructions>>("amx");

}  // namespace nibble
