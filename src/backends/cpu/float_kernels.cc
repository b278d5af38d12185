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
  if constexpr (NIBBLE_AMX_KERNELS)
    if (kernels.name.starts_with(kAmxFloatKernels.name)) return kAmxFloatKernels;
  if constexpr (NIBBLE_AVX512_KERNELS)
    if (kernels.name == kAvx512FloatKernels.name) return kAvx512FloatKernels;
  if constexpr (NIBBLE_AVX512_VNNI_KERNELS)
    if (kernels.name == kAvx512VnniFloatKernels.name) return kAvx512VnniFloatKernels;
  if constexpr (NIBBLE_AVX_VNNI_KERNELS)
    if (kernels.name == kAvxVnniFloatKernels.name) return kAvxVnniFloatKernels;
  if constexpr (NIBBLE_AVX2_KERNELS)
    if (kernels.name == kAvx2FloatKernels.name) return kAvx2FloatKernels;
#elif defined(__aarch64__)
  if (kernels.name != kGenericFloatKernels.name) return kNeonDotprodFloatKernels;  // both others have SDOT
#endif
  return kGenericFloatKernels;
}

}  // namespace nibble
