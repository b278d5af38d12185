// AMX (Sapphire Rapids and later) for many tokens, AVX-512 for few.
#include "backends/cpu/amx_linear.h"

namespace nibble {

extern const CpuKernels kAmxKernels, kAmxBf16Kernels;
constinit const CpuKernels kAmxKernels = tiles_kernels<AmxInstructions>("amx");
constinit const CpuKernels kAmxBf16Kernels = float_tiles_kernels<AmxInstructions>("amx_bf16");

}  // namespace nibble
