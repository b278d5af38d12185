#include "backends/cpu/float_kernels.h"

#include "backends/cpu/kernels.h"

namespace nibble {

extern const FloatKernels kGenericFloatKernels;
#if defined(__x86_64__)
extern const FloatKernels kAvx2FloatKernels, kAvxVnniFloatKernels, kAvx512VnniFloatKernels, kAvx512FloatKernels,
    kAmxFloatKernels;
#elif defined(__aarch64__)
extern const FloatKernels kNeonDotprodFloatKernels;
#endif

const FloatKernels& float_kernels() { return float_kernels_of(cpu_kernels()); }

const FloatKernels& float_kernels_of([[maybe_unused]] const CpuKernels& kernels) {
#if defined(__x86_64__)
  for (const FloatKernels* table :
       {&kAmxFloatKernels, &kAvx512FloatKernels, &kAvx512VnniFloatKernels, &kAvxVnniFloatKernels, &kAvx2FloatKernels})
    if (kernels.name == table->name) return *table;
#elif defined(__aarch64__)
  if (kernels.name != kGenericFloatKernels.name) return kNeonDotprodFloatKernels;  // both others have SDOT
#endif
  return kGenericFloatKernels;
}

}  // namespace nibble
