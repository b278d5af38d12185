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
  // A tile decodes B once for 64 rows, the batched kernel for each 8 of them, but a tile computes all its rows. Per row
  // tiles are 8 % faster (4096 x 4096 on an Emerald Rapids core: 88 against 81.5 billion products a second).
  const int64_t unused_rows = (64 - M % 64) % 64;
  return unused_rows <= M / 12 ? GemmRoute::marlin_gemm_fp4 : GemmRoute::batched_gemv_fp4;
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
