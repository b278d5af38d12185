// AVX-512's kernels, which multiply a single token's rows in halves where this machine's do not, and whole where they do. This
// follows the rules of linear_kernel.h: it is compiled for AVX-512.
#include "backends/cpu/kernels_avx512.h"

namespace nibble {

extern const CpuKernels kAvx512Kernels;

namespace {

struct OfOtherWidth : Avx512 {
  static bool in_halves(bool is_nibble) { return !Avx512::in_halves(is_nibble); }
};

}  // namespace

extern const CpuKernels kAvx512OfOtherWidth;
const CpuKernels kAvx512OfOtherWidth = [] {
  CpuKernels table = kAvx512Kernels;
  table.name = "avx512 of the other width";
  table.linear = linear<OfOtherWidth>;
  return table;
}();

}  // namespace nibble
