// dispatch_gemm_fp4 on Metal: which kernels run, over which grids. Pure functions, tested without a device.
#pragma once

#include <cstdint>

#include "backends/metal/gemm_fp4_arguments.h"
#include "ops/choose_gemm.h"

namespace nibble {

enum class MetalGemmKernel : uint8_t {
  decode_gemv_fp4_wide,
  gemv_fp4_split_1,
  gemv_fp4_split_2,
  gemv_fp4_split_4,
  gemv_fp4_split_8,
  sum_splits_half,
  sum_splits_float,
  marlin_gemm_fp4_half,
  marlin_gemm_fp4_float,
};

// The name of its function in the .metal files.
const char* metal_gemm_kernel_name(MetalGemmKernel kernel);

// One dispatch. Buffers, by index:
//   decode_gemv_fp4_wide   A, B, scales, C, then M, N, K, group_size, each a uint
//   sum_splits_*           partials, C, arguments
//   the others             A, B, scales, out, arguments; out is C, or partials where another dispatch follows
struct MetalGemmDispatch {
  MetalGemmKernel kernel;
  uint32_t threadgroups[3];
  uint32_t threads;  // of a threadgroup
};

// A dispatch reads what the one before it wrote.
struct MetalGemmPlan {
  GemmRoute route = GemmRoute::nothing;
  metal_arguments::GemmFp4Arguments arguments{};
  uint64_t partial_bytes = 0;  // of the buffer `partials`, floats [num_splits, M, N]; 0: none is needed
  int num_dispatches = 0;
  MetalGemmDispatch dispatches[2] = {};
};

// For choose_gemm_fp4. The batched GEMV reads B anew for each 8 tokens, as many as a thread has registers for, a tile once for
// 64: so a tile pays from 9 tokens on. By reason, not by measurement.
inline constexpr GemmFp4Device kMetalGemmFp4 = {.rows_worth_a_tile = 9};

// How many k one threadgroup of a GEMV takes: all of them where the columns alone give enough threadgroups to fill a GPU, else
// a part, a multiple of group_size and at least 128. A multiple of group_size in any case.
int64_t choose_split_k(int64_t N, int64_t K, int64_t group_size) noexcept;

// The plan of a route for a shape with a valid group_size. `is_float`: C is float32, not half. Throws InputError if the shape
// is beyond what the kernels' 32-bit indices reach.
MetalGemmPlan plan_gemm_fp4_metal(GemmRoute route, int64_t M, int64_t N, int64_t K, int64_t group_size, bool is_float);

}  // namespace nibble
