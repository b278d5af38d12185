// dispatch_gemm_fp4: checks the arguments, chooses the route and cuts the work into strips for the kernels.
#include <algorithm>

#include "backends/cpu/kernels.h"
#include "ops/choose_gemm.h"

namespace nibble {

namespace {

bool is_size(int64_t rows, int64_t columns, int64_t element_bytes) {
  int64_t bytes = 0;
  return !__builtin_mul_overflow(rows, columns, &bytes) && !__builtin_mul_overflow(bytes, element_bytes, &bytes);
}

GemmStatus check(const GemmFp4& g) {
  if (g.M < 0 || g.N < 0 || g.K < 0 || g.K % 8 != 0) return GemmStatus::bad_size;
  if (g.group_size != 32 && g.group_size != 64 && g.group_size != 128) return GemmStatus::bad_size;
  if (!is_size(g.M, g.K, 2) || !is_size(g.K, g.N, 4) || !is_size(g.M, g.N, 4)) return GemmStatus::bad_size;
  if (g.C_half != nullptr && g.C_float != nullptr) return GemmStatus::bad_output;
  if (g.M == 0 || g.N == 0) return GemmStatus::ok;
  if (g.C_half == nullptr && g.C_float == nullptr) return GemmStatus::null_pointer;
  if (g.K > 0 && (g.A == nullptr || g.B == nullptr || g.scales == nullptr)) return GemmStatus::null_pointer;
  return GemmStatus::ok;
}

const CpuKernels* find_kernels() noexcept {
  try {
    return &cpu_kernels();
  } catch (...) {
    return nullptr;
  }
}

constexpr int64_t kMarlinTileRows = 64;  // rows of a tile of marlin_gemm_fp4, computed whether there are tokens or not

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a route cuts C: strips of `tokens` by `columns`.
struct Strips {
  const CpuKernels* kernels;
  const GemmFp4* gemm;
  int64_t columns, num_column_strips, num_strips;
  int tokens, num_tasks;
  bool pads;  // computes rows past M
};

Strips cut(const GemmFp4& gemm, GemmRoute route, int num_threads) {
  Strips s{};
  s.gemm = &gemm;
  s.tokens = static_cast<int>(std::min<int64_t>(gemm.M, kMaxStripTokens));
  if (route == GemmRoute::decode_gemv_fp4_wide) s.tokens = 1;
  int64_t rows = gemm.M;
  if (route == GemmRoute::marlin_gemm_fp4) {
    s.tokens = kMaxStripTokens;
    rows = divide_up(gemm.M, kMarlinTileRows) * kMarlinTileRows;
    s.pads = true;
  }
  // As many columns as the sums have room for: long runs of a row. One token's 64 KB do not fit the first-level cache, but
  // strips of 4096 columns took 6 to 9 % longer from memory (Zen 4).
  const int64_t most = kStripAccumulators / s.tokens / 64 * 64;
  const int64_t share = divide_up(divide_up(gemm.N, num_threads), 64) * 64;
  s.columns = std::min(most, share);
  s.num_column_strips = divide_up(gemm.N, s.columns);
  s.num_strips = s.num_column_strips * divide_up(rows, s.tokens);
  s.num_tasks = static_cast<int>(std::min<int64_t>(s.num_strips, int64_t{4} * num_threads));
  return s;
}

void run_task(void* context, int task) {
  const Strips& s = *static_cast<const Strips*>(context);
  const Range range = worker_range(s.num_strips, 1, task, s.num_tasks);
  for (int64_t i = range.first; i < range.last; i++) {
    const int64_t first_column = i % s.num_column_strips * s.columns;
    const int64_t first_token = i / s.num_column_strips * s.tokens;
    const int64_t left = s.gemm->M - first_token;
    s.kernels->gemm_fp4({.gemm = s.gemm,
                         .first_token = first_token,
                         .first_column = first_column,
                         .num_columns = std::min(s.columns, s.gemm->N - first_column),
                         .num_tokens = s.pads || left > s.tokens ? s.tokens : static_cast<int>(left)});
  }
}

}  // namespace

GemmStatus gemm_fp4_with(const CpuKernels& kernels, const GemmFp4& gemm, GemmRoute route) noexcept {
  if (const GemmStatus status = check(gemm); status != GemmStatus::ok) return status;
  if (gemm.M == 0 || gemm.N == 0 || route == GemmRoute::nothing) return GemmStatus::ok;
  const bool is_parallel = gemm.parallel.run != nullptr && gemm.parallel.num_threads > 1;
  Strips strips = cut(gemm, route, is_parallel ? gemm.parallel.num_threads : 1);
  strips.kernels = &kernels;
  if (is_parallel && strips.num_tasks > 1) {
    gemm.parallel.run(gemm.parallel.context, strips.num_tasks, run_task, &strips);
  } else {
    for (int task = 0; task < strips.num_tasks; task++) run_task(&strips, task);
  }
  return GemmStatus::ok;
}

GemmStatus gemm_fp4_on_route(const GemmFp4& gemm, GemmRoute route) noexcept {
  static const CpuKernels* const kernels = find_kernels();
  return kernels == nullptr ? GemmStatus::bad_kernels : gemm_fp4_with(*kernels, gemm, route);
}

GemmStatus dispatch_gemm_fp4(const GemmFp4& gemm) noexcept {
  return gemm_fp4_on_route(gemm, choose_gemm_fp4(gemm.M, gemm.N, gemm.K));
}

const char* gemm_status_text(GemmStatus status) {
  switch (status) {
    case GemmStatus::ok: return "done";
    case GemmStatus::bad_size:
      return "a size is negative or too large, K is not a multiple of 8, or group_size is not 32, 64 or 128";
    case GemmStatus::null_pointer: return "A, B, scales or C is null, but its size is not zero";
    case GemmStatus::bad_output: return "both C_half and C_float are given; exactly one is expected";
    case GemmStatus::bad_kernels: return "NIBBLE_CPU_KERNELS names kernels that this machine does not have";
  }
  return "";
}

}  // namespace nibble
