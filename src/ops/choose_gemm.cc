#include "ops/choose_gemm.h"

namespace nibble {

LinearKernel choose_linear(int64_t M, LinearRoute route) {
  if (route == LinearRoute::always_tiles) return LinearKernel::tiles_of_64;
  return M <= 1 ? LinearKernel::gemv : LinearKernel::batched;
}

std::string_view linear_kernel_name(LinearKernel kernel) {
  switch (kernel) {
    case LinearKernel::gemv: return "gemv";
    case LinearKernel::batched: return "batched";
    case LinearKernel::tiles_of_64: return "tiles of 64";
  }
  return "";
}

GemmRoute choose_gemm_fp4(int64_t M, int64_t N, const GemmFp4Device& device) noexcept {
  if (M == 0 || N == 0) return GemmRoute::nothing;
  if (M == 1) return GemmRoute::decode_gemv_fp4_wide;
  const int64_t num_tiles = M / 64 + (M % 64 != 0 ? 1 : 0);
  return num_tiles <= M / device.rows_worth_a_tile ? GemmRoute::marlin_gemm_fp4 : GemmRoute::batched_gemv_fp4;
}

GemmRoute choose_gemm_fp4(int64_t M, int64_t N, int64_t) noexcept { return choose_gemm_fp4(M, N, kCpuGemmFp4); }

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
