#define NIBBLE_FLOAT_KERNELS kAvx512FloatKernels
#define NIBBLE_FLOAT_KERNELS_NAME "avx512"
#include "backends/cpu/float_kernels.inc"
