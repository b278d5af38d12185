#include "backends/cpu/float_kernels.inc"

namespace nibble {

extern const FloatKernels kAvx2FloatKernels;
constinit const FloatKernels kAvx2FloatKernels = float_kernels_named("avx2");

}  // namespace nibble
