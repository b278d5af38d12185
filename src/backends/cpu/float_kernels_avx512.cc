#include "backends/cpu/float_kernels.inc"

namespace nibble {

extern const FloatKernels kAvx512FloatKernels;
constinit const FloatKernels kAvx512FloatKernels = float_kernels_named("avx512");

}  // namespace nibble
