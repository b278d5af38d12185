// With dot products and matrix products of bytes (Cortex-A710, Neoverse V1 and N2, Apple M2).
#include "backends/cpu/kernels_neon.h"

namespace nibble {

extern const CpuKernels kNeonI8mmKernels;
constinit const CpuKernels kNeonI8mmKernels = {.name = "neon_i8mm",
                                               .prepare = prepare<Neon>,
                                               .linear = linear<Neon>,
                                               .interleave_rows = interleave_rows,
                                               .gemm_fp4 = gemm_fp4_strip<Neon>,
                                               .read = read};

}  // namespace nibble
