// AMX with 8-bit integers (Sapphire Rapids and later) for many tokens, AVX-512 for few.
#include "backends/cpu/amx_linear.h"

namespace nibble {

extern const CpuKernels kAmxKernels;
constinit const CpuKernels kAmxKernels = {.name = "amx",
                                          .prepare = prepare<Avx512>,
                                          .linear = tiles_linear<IntegerTiles<AmxInstructions>>,
                                          .gemm_fp4 = gemm_fp4_strip<Avx512>,
                                          .read = read};

}  // namespace nibble
