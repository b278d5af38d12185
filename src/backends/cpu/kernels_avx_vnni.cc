// AVX2 with AVX-VNNI (Alder Lake and later, which have no AVX-512).
#include "backends/cpu/kernels_avx2.h"

namespace nibble {

extern const CpuKernels kAvxVnniKernels;
constinit const CpuKernels kAvxVnniKernels = {.name = "avx_vnni",
                                              .prepare = prepare<Avx2>,
                                              .linear = linear<Avx2>,
                                              .interleave_rows = interleave_rows,
                                              .gemm_fp4 = gemm_fp4_strip<Avx2>,
                                              .read = read};

}  // namespace nibble
