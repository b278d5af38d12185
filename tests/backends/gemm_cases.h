// The cases of dispatch_gemm_fp4, walked by its test and, for the larger ones, by bench_gemm_fp4.
#pragma once

#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "backends/random_floats.h"
#include "base/worker_pool.h"
#include "formats/e2m1.h"
#include "formats/f16.h"
#include "nibble/dispatch_gemm_fp4.h"

namespace nibble {

struct GemmShape {
  int64_t N, K, group_size;
};

// Awkward ones: columns and rows of B that fill no vector, last groups that are short.
inline constexpr GemmShape kAwkwardGemmShapes[] = {
    {1, 8, 32},    {3, 32, 32},   {15, 40, 32},   {16, 96, 64},    {17, 48, 32},   {33, 104, 64},
    {63, 64, 128}, {64, 128, 64}, {65, 136, 128}, {100, 264, 128}, {17, 2880, 64}, {1000, 56, 32},
};

inline constexpr GemmShape kGemmShapes[] = {
    {4096, 4096, 64}, {2048, 1536, 64}, {1536, 2048, 64}, {8192, 28672, 64}, {151936, 2048, 64}};

inline constexpr int64_t kGemmTokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};

// Operands of exactly their size, so that a read past an end is one past an allocation.
struct GemmOperands {
  GemmOperands(const GemmShape& shape, int64_t num_tokens, uint32_t seed)
      : M(num_tokens), N(shape.N), K(shape.K), group_size(shape.group_size) {
    std::mt19937 random(seed);
    A.resize(static_cast<size_t>(M * K));
    B.resize(static_cast<size_t>(K / 8 * N));
    scales.resize(static_cast<size_t>((K + group_size - 1) / group_size * N));
    for (Half& value : A) value.bits = float_to_half(random_float(random));
    for (uint32_t& word : B) word = static_cast<uint32_t>(random());
    for (Half& scale : scales) scale.bits = float_to_half(random_float(random) / 16);
  }
  GemmFp4 gemm() const {
    return {.M = M, .N = N, .K = K, .group_size = group_size, .A = A.data(), .B = B.data(), .scales = scales.data()};
  }
  int64_t M, N, K, group_size;
  std::vector<Half> A, scales;
  std::vector<uint32_t> B;
};

// The slow twin: plain loops, double sums. `bound` is the sum of |B| times the largest |A| of each 32 (what rounding to
// 15 bits can move, times 32512) and `magnitudes` the sum of |A * B|.
struct GemmElement {
  double value = 0, bound = 0, magnitudes = 0;
};

inline GemmElement gemm_element(const GemmFp4& g, int64_t m, int64_t n) {
  GemmElement out;
  for (int64_t first = 0; first < g.K; first += 32) {
    double largest = 0, weights = 0;
    for (int64_t k = first; k < std::min<int64_t>(first + 32, g.K); k++) {
      const double a = half_to_float(g.A[m * g.K + k].bits);
      const uint32_t code = g.B[k / 8 * g.N + n] >> (k % 8 * 4);
      const double w = double{e2m1_to_float(code)} * half_to_float(g.scales[k / g.group_size * g.N + n].bits);
      out.value += a * w;
      out.magnitudes += std::fabs(a * w);
      largest = std::max(largest, std::fabs(a));
      weights += std::fabs(w);
    }
    out.bound += largest * weights;
  }
  return out;
}

// Runs the tasks of dispatch_gemm_fp4 on a pool.
inline ParallelFor on_pool(WorkerPool& pool) {
  return {.context = &pool,
          .run =
              [](void* context, int num_tasks, void (*task)(void*, int), void* task_context) {
                std::atomic<int> next{0};
                static_cast<WorkerPool*>(context)->run([&](int) {
                  for (int i; (i = next++) < num_tasks;) task(task_context, i);
                });
              },
          .num_threads = pool.num_threads()};
}

}  // namespace nibble
