#define NIBBLE_FLOAT_KERNELS kAvx2FloatKernels
#define NIBBLE_FLOAT_KERNELS_NAME "avx2"
#include "backends/cpu/float_kernels.inc"
