#include "backends/cpu/attend_int8.h"

namespace nibble {

extern const FloatKernels kAvx512VnniFloatKernels;
constinit const FloatKernels kAvx512VnniFloatKernels = with_int8(float_kernels_named("avx512_vnni"));

}  // namespace nibble
