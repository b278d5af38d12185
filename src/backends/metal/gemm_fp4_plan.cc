#include "backends/metal/gemm_fp4_plan.h"

#include <algorithm>

#include "backends/metal/metal_device.h"
#include "base/error.h"

namespace nibble {

namespace {

constexpr int64_t kGemvColumns = 512, kGemvThreads = 128;  // of a threadgroup of the GEMVs
constexpr int64_t kMarlinTile = 64, kMarlinThreads = 128;
constexpr int64_t kSumThreads = 256;
constexpr int64_t kBatchedRows = 8;
static_assert(kMetalGemmFp4.rows_worth_a_tile == kBatchedRows + 1);

constexpr int64_t kLeastSplitK = 128;  // gemv_fp4_split.metal says why

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
uint32_t size(int64_t n) { return static_cast<uint32_t>(n); }

MetalGemmKernel split_kernel(int64_t rows) {
  if (rows == 1) return MetalGemmKernel::gemv_fp4_split_1;
  if (rows == 2) return MetalGemmKernel::gemv_fp4_split_2;
  return rows <= 4 ? MetalGemmKernel::gemv_fp4_split_4 : MetalGemmKernel::gemv_fp4_split_8;
}

int64_t rows_of(MetalGemmKernel kernel) {
  switch (kernel) {
    case MetalGemmKernel::gemv_fp4_split_1: return 1;
    case MetalGemmKernel::gemv_fp4_split_2: return 2;
    case MetalGemmKernel::gemv_fp4_split_4: return 4;
    default: return kBatchedRows;
  }
}

void add(MetalGemmPlan& plan, MetalGemmKernel kernel, int64_t x, int64_t y, int64_t z, int64_t threads) {
  plan.dispatches[plan.num_dispatches++] = {kernel, {size(x), size(y), size(z)}, size(threads)};
}

}  // namespace

const char* metal_gemm_kernel_name(MetalGemmKernel kernel) {
  switch (kernel) {
    case MetalGemmKernel::decode_gemv_fp4_wide: return "decode_gemv_fp4_wide";
    case MetalGemmKernel::gemv_fp4_split_1: return "gemv_fp4_split_1";
    case MetalGemmKernel::gemv_fp4_split_2: return "gemv_fp4_split_2";
    case MetalGemmKernel::gemv_fp4_split_4: return "gemv_fp4_split_4";
    case MetalGemmKernel::gemv_fp4_split_8: return "gemv_fp4_split_8";
    case MetalGemmKernel::sum_splits_half: return "sum_splits_half";
    case MetalGemmKernel::sum_splits_float: return "sum_splits_float";
    case MetalGemmKernel::marlin_gemm_fp4_half: return "marlin_gemm_fp4_half";
    case MetalGemmKernel::marlin_gemm_fp4_float: return "marlin_gemm_fp4_float";
  }
  return "";
}

int64_t choose_split_k(int64_t N, int64_t K, int64_t group_size) noexcept {
  const int64_t wanted_splits =
      std::max<int64_t>(1, kBusyThreadgroups / divide_up(std::max<int64_t>(N, 1), kGemvColumns));
  const int64_t split_k = std::max(divide_up(K, wanted_splits), kLeastSplitK);
  return divide_up(std::min(split_k, std::max<int64_t>(K, 1)), group_size) * group_size;
}

MetalGemmPlan plan_gemm_fp4_metal(GemmRoute route, int64_t M, int64_t N, int64_t K, int64_t group_size, bool is_float) {
  constexpr int64_t most = int64_t{1} << 31;
  MetalGemmPlan plan;
  plan.route = M == 0 || N == 0 ? GemmRoute::nothing : route;
  if (plan.route == GemmRoute::nothing) return plan;
  int64_t outputs = 0;
  const int64_t split_k = choose_split_k(N, K, group_size);
  const int64_t num_splits = std::max<int64_t>(1, divide_up(K, split_k));
  if (M > most || N > most || K > most || K / 8 * N > most || M * K > most || M > most / N ||
      __builtin_mul_overflow(M * N, num_splits, &outputs) || outputs > most)
    throw_input_error("dispatch_gemm_fp4 on Metal: M {}, N {}, K {}: a matrix of more than {} elements", M, N, K, most);
  plan.arguments = {size(M), size(N), size(K), size(group_size), size(split_k), size(num_splits)};

  const int64_t column_groups = divide_up(N, kGemvColumns);
  if (route == GemmRoute::marlin_gemm_fp4) {
    add(plan, is_float ? MetalGemmKernel::marlin_gemm_fp4_float : MetalGemmKernel::marlin_gemm_fp4_half,
        divide_up(N, kMarlinTile), divide_up(M, kMarlinTile), 1, kMarlinThreads);
    return plan;
  }
  if (M == 1 && num_splits == 1 && !is_float) {
    add(plan, MetalGemmKernel::decode_gemv_fp4_wide, column_groups, 1, 1, kGemvThreads);
    return plan;
  }
  const MetalGemmKernel kernel = split_kernel(route == GemmRoute::decode_gemv_fp4_wide ? 1 : M);
  add(plan, kernel, column_groups, num_splits, divide_up(M, rows_of(kernel)), kGemvThreads);
  if (num_splits == 1 && is_float) return plan;
  plan.partial_bytes = static_cast<uint64_t>(outputs) * sizeof(float);
  add(plan, is_float ? MetalGemmKernel::sum_splits_float : MetalGemmKernel::sum_splits_half,
      divide_up(M * N, kSumThreads), 1, 1, kSumThreads);
  return plan;
}

}  // namespace nibble
