// The kernels for AMX over emulated tiles. This follows the rules of linear_kernel.h: it is compiled for AVX-512.
#include "backends/cpu/amx_linear.h"
#include "backends/emulated_tiles.h"

namespace nibble {

extern const CpuKernels kEmulatedAmxKernels;
constinit const CpuKernels kEmulatedAmxKernels = {.name = "amx, emulated",
                                                  .prepare = prepare<Avx512>,
                                                  .linear = tiles_linear<IntegerTiles<EmulatedInstructions>>,
                                                  .gemm_fp4 = gemm_fp4_strip<Avx512>,
                                                  .read = read};

}  // namespace nibble
