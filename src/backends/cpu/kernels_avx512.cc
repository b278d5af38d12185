#include "backends/cpu/kernels_avx512.h"

#include "backends/cpu/gemm_fp4_kernel.h"

namespace nibble {
namespace {

uint64_t read(const uint8_t* bytes, int64_t size) {
  __m512i sums[8] = {};
  for (int64_t i = 0; i < size; i += 8 * kLineBytes) {
    for (int j = 0; j < 8; j++) {
      prefetch_read(bytes + i + j * kLineBytes);
      sums[j] = _mm512_xor_si512(sums[j], _mm512_loadu_si512(bytes + i + j * kLineBytes));
    }
  }
  for (int j = 1; j < 8; j++) sums[0] = _mm512_xor_si512(sums[0], sums[j]);
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(sums[0]));
}

}  // namespace

extern const CpuKernels kAvx512Kernels;
constinit const CpuKernels kAvx512Kernels = {.name = "avx512",
                                             .prepare = prepare<Avx512>,
                                             .linear = linear<Avx512>,
                                             .interleave_rows = interleave_rows,
                                             .gemm_fp4 = gemm_fp4_strip<Avx512>,
                                             .read = read};

}  // namespace nibble
