// Armv8.2 with dot products of bytes (Cortex-A76, Neoverse N1, Apple M1).
#include "backends/cpu/kernels_neon.h"

namespace nibble {

extern const CpuKernels kNeonDotprodKernels;
constinit const CpuKernels kNeonDotprodKernels = {.name = "neon_dotprod",
                                                  .prepare = prepare<Neon>,
                                                  .linear = linear<Neon>,
                                                  .interleave_rows = interleave_rows,
                                                  .gemm_fp4 = gemm_fp4_strip<Neon>,
                                                  .read = read};

}  // namespace nibble
