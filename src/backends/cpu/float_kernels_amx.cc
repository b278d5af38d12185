// AVX-512's, with attention by tiles.
#include "backends/cpu/attend_tiles.h"

namespace nibble {

extern const FloatKernels kAmxFloatKernels;
constinit const FloatKernels kAmxFloatKernels = with_tiles<AmxInstructions>(float_kernels_named("amx"));

}  // namespace nibble
