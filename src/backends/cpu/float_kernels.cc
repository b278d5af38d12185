#include "backends/cpu/float_kernels.h"

#include "backends/cpu/kernels.h"

namespace nibble {

extern const FloatKernels kGenericFloatKernels;
#if defined(__x86_64__)
extern const FloatKernels kAvx2FloatKernels, kAvx512FloatKernels;
#endif

const FloatKernels& float_kernels() {
#if defined(__x86_64__)
  const std::string_view name = cpu_kernels().name;
  if (name == kAvx512FloatKernels.name || name == "amx") return kAvx512FloatKernels;  // amx: avx512 with tiles
  if (name != kGenericFloatKernels.name) return kAvx2FloatKernels;                    // all others have AVX2
#endif
  return kGenericFloatKernels;
}

}  // namespace nibble
