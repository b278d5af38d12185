#include "ops/choose_gemm.h"

namespace nibble {

LinearKernel choose_linear(int64_t M, LinearRoute route) {
  if (route == LinearRoute::always_tiles) return LinearKernel::tiles_of_64;
  if (M <= 1) return LinearKernel::gemv;
  return M <= kBatchedTokens ? LinearKernel::batched : LinearKernel::tiles;
}

std::string_view linear_kernel_name(LinearKernel kernel) {
  switch (kernel) {
    case LinearKernel::gemv: return "gemv";
    case LinearKernel::batched: return "batched";
    case LinearKernel::tiles: return "tiles of 8";
    case LinearKernel::tiles_of_64: return "tiles of 64";
  }
  return "";
}

GemmRoute choose_gemm_fp4(int64_t M, int64_t N, int64_t) noexcept {
  if (M == 0 || N == 0) return GemmRoute::nothing;
  if (M == 1) return GemmRoute::decode_gemv_fp4_wide;
  // Per row both are as fast, but a tile computes all its 64 rows.
  return M % 64 == 0 ? GemmRoute::marlin_gemm_fp4 : GemmRoute::batched_gemv_fp4;
}

const char* gemm_route_name(GemmRoute route) {
  switch (route) {
    case GemmRoute::nothing: return "nothing";
    case GemmRoute::decode_gemv_fp4_wide: return "decode_gemv_fp4_wide";
    case GemmRoute::batched_gemv_fp4: return "batched_gemv_fp4";
    case GemmRoute::marlin_gemm_fp4: return "marlin_gemm_fp4";
  }
  return "";
}

}  // namespace nibble
