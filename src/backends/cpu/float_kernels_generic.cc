#include "backends/cpu/float_kernels.inc"

namespace nibble {

extern const FloatKernels kGenericFloatKernels;
constinit const FloatKernels kGenericFloatKernels = float_kernels_named("generic");

}  // namespace nibble
