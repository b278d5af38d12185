#include "backends/cpu/float_kernels.h"

#include "backends/cpu/kernels.h"

namespace nibble {

extern const FloatKernels kGenericFloatKernels;
#if defined(__x86_64__)
extern const FloatKernels kAvx2FloatKernels, kAvx512FloatKernels;
#endif

const FloatKernels& float_kernels() {
#if defined(__x86_64__)
  if (cpu_kernels().name == kAvx512FloatKernels.name) return kAvx512FloatKernels;
  if (cpu_kernels().name != kGenericFloatKernels.name) return kAvx2FloatKernels;  // all others have AVX2
#endif
  return kGenericFloatKernels;
}

}  // namespace nibble
