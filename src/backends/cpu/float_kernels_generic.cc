#define NIBBLE_FLOAT_KERNELS kGenericFloatKernels
#define NIBBLE_FLOAT_KERNELS_NAME "generic"
#include "backends/cpu/float_kernels.inc"
