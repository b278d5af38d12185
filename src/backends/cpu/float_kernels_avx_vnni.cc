#include "backends/cpu/attend_int8.h"

namespace nibble {

extern const FloatKernels kAvxVnniFloatKernels;
constinit const FloatKernels kAvxVnniFloatKernels = with_int8(float_kernels_named("avx_vnni"));

}  // namespace nibble
