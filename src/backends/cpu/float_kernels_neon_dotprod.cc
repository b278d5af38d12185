#include "backends/cpu/attend_int8.h"

namespace nibble {

extern const FloatKernels kNeonDotprodFloatKernels;
constinit const FloatKernels kNeonDotprodFloatKernels = with_int8(float_kernels_named("neon_dotprod"));

}  // namespace nibble
