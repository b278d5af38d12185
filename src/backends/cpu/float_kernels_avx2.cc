#include "backends/cpu/attend_int8.h"

namespace nibble {

extern const FloatKernels kAvx2FloatKernels;
constinit const FloatKernels kAvx2FloatKernels = with_int8(float_kernels_named("avx2"));

}  // namespace nibble
