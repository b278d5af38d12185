// The 256-bit kernels in AVX-512's encoding, for AVX-512 with VNNI but without VBMI (Cascade Lake).
#include "backends/cpu/kernels_avx2.h"

namespace nibble {

extern const CpuKernels kAvx512VnniKernels;
constinit const CpuKernels kAvx512VnniKernels = {.name = "avx512_vnni",
                                                 .prepare = prepare<Avx2>,
                                                 .linear = linear<Avx2>,
                                                 .interleave_rows = interleave_rows,
                                                 .gemm_fp4 = gemm_fp4_strip<Avx2>,
                                                 .read = read};

}  // namespace nibble
