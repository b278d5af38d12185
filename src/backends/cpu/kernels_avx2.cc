// AVX2 with FMA and F16C.
#include "backends/cpu/kernels_avx2.h"

namespace nibble {

extern const CpuKernels kAvx2Kernels;
constinit const CpuKernels kAvx2Kernels = {.name = "avx2",
                                           .prepare = prepare<Avx2>,
                                           .linear = linear<Avx2>,
                                           .interleave_rows = interleave_rows,
                                           .gemm_fp4 = gemm_fp4_strip<Avx2>,
                                           .read = read};

}  // namespace nibble
