// The kernels for AMX over tiles in plain C++, so that they are tested on machines that have none. It follows the rules
// of linear_kernel.h: compiled for AVX-512.
#include "backends/cpu/amx_linear.h"

namespace nibble {
namespace {

struct EmulatedTiles {
  static inline thread_local int num_tokens = 0;  // 0: not configured
  static inline thread_local int32_t sums[2][2][kTileTokens][kBlockRows];

  static void configure(int tokens) {
    if (tokens < 1 || tokens > kTileTokens) __builtin_trap();
    num_tokens = tokens;
  }
  static void release() { num_tokens = 0; }

  template <int set, int num_planes>
  static void multiply(const ActivationGroup* x, const int8_t* codes) {
    if (num_tokens == 0) __builtin_trap();
    for (int plane = 0; plane < num_planes; plane++)
      for (int t = 0; t < num_tokens; t++)
        for (int row = 0; row < kBlockRows; row++) {
          const int8_t* q = plane == 0 ? x[t].high : x[t].low;
          int32_t sum = 0;
          for (int k = 0; k < kGroup; k++) sum += q[k] * codes[k / 4 * kLineBytes + 4 * row + k % 4];
          sums[set][plane][t][row] = sum;
        }
  }

  template <int set, int num_planes>
  static void store(TileSums& out) {
    if (num_tokens == 0) __builtin_trap();
    for (int plane = 0; plane < num_planes; plane++)
      __builtin_memcpy(out[plane], sums[set][plane], static_cast<size_t>(num_tokens) * kLineBytes);
  }
};

}  // namespace

extern const CpuKernels kEmulatedAmxKernels;
constinit const CpuKernels kEmulatedAmxKernels = {.name = "amx, emulated",
                                                  .prepare = prepare<Avx512>,
                                                  .linear = tiles_linear<EmulatedTiles>,
                                                  .gemm_fp4 = gemm_fp4_strip<Avx512>,
                                                  .read = read};

}  // namespace nibble
