#include "backends/cpu/float_kernels.h"

#include "backends/cpu/kernels.h"

namespace nibble {

extern const FloatKernels kGenericFloatKernels;
#if defined(__x86_64__)
extern const FloatKernels kAvx2FloatKernels, kAvx512FloatKernels, kAmxFloatKernels;
#endif

const FloatKernels& float_kernels() { return float_kernels_of(cpu_kernels()); }

const FloatKernels& float_kernels_of([[maybe_unused]] const CpuKernels& kernels) {
#if defined(__x86_64__)
  const std::string_view name = kernels.name;
  if (name == kAmxFloatKernels.name) return kAmxFloatKernels;
  if (name == kAvx512FloatKernels.name) return kAvx512FloatKernels;
  if (name != kGenericFloatKernels.name) return kAvx2FloatKernels;  // all others have AVX2
#endif
  return kGenericFloatKernels;
}

}  // namespace nibble
