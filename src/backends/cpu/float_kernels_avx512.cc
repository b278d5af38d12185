#include "backends/cpu/attend_int8.h"

namespace nibble {

extern const FloatKernels kAvx512FloatKernels;
constinit const FloatKernels kAvx512FloatKernels = with_int8(float_kernels_named("avx512"));

}  // namespace nibble
