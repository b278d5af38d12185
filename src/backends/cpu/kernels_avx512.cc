#include "backends/cpu/kernels_avx512.h"

namespace nibble {

extern const CpuKernels kAvx512Kernels;
constinit const CpuKernels kAvx512Kernels = {.name = "avx512",
                                             .prepare = prepare<Avx512>,
                                             .linear = linear<Avx512>,
                                             .gemm_fp4 = gemm_fp4_strip<Avx512>,
                                             .read = read};

}  // namespace nibble
