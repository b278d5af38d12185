// dispatch_gemm_fp4 and its routes, on every kernel table of this machine, against the slow twin.
#include <atomic>
#include <limits>

#include <gtest/gtest.h>

#include "backends/cpu/kernels.h"
#include "backends/gemm_cases.h"
#include "base/worker_pool.h"

namespace nibble {
namespace {

#ifdef NIBBLE_TEST_SLOW_BUILD  // emulated
constexpr int64_t kTokens[] = {1, 2, 9, 33};
#else
constexpr int64_t kTokens[] = {1, 2, 3, 7, 8, 9, 33, 64, 65};
#endif
constexpr GemmRoute kRoutes[] = {GemmRoute::decode_gemv_fp4_wide, GemmRoute::batched_gemv_fp4,
                                 GemmRoute::marlin_gemm_fp4};

// Each activation is rounded to within half of 1 / 16256 of its group's largest; a float32 sum of n terms is within
// n * 2^-24 of the sum of their magnitudes.
double tolerance_of(const GemmElement& element, int64_t K) {
  return element.bound / 16256 * 0.501 + element.magnitudes * (static_cast<double>(K) / 32 + 8) * 0x1p-23 + 1e-30;
}

TEST(GemmFp4, EveryRouteGivesTheProduct) {
  uint32_t seed = 1;
  for (const CpuKernels* kernels : supported_cpu_kernels()) {
    for (const GemmShape& shape : kAwkwardGemmShapes) {
      for (int64_t M : kTokens) {
        const GemmOperands operands(shape, M, seed++);
        std::vector<float> first;
        for (GemmRoute route : kRoutes) {
          std::vector<float> C(static_cast<size_t>(M * shape.N), -1e30f);
          GemmFp4 gemm = operands.gemm();
          gemm.C_float = C.data();
          ASSERT_EQ(gemm_fp4_with(*kernels, gemm, route), GemmStatus::ok);
          if (first.empty()) {
            for (int64_t m = 0; m < M; m++) {
              for (int64_t n = 0; n < shape.N; n++) {
                const GemmElement wanted = gemm_element(gemm, m, n);
                ASSERT_NEAR(C[static_cast<size_t>(m * shape.N + n)], wanted.value, tolerance_of(wanted, shape.K))
                    << kernels->name << " " << gemm_route_name(route) << " M " << M << " N " << shape.N << " K "
                    << shape.K << " group " << shape.group_size << " row " << m << " column " << n;
              }
            }
            first = C;
          }
          ASSERT_EQ(C, first) << kernels->name << " " << gemm_route_name(route) << " M " << M << " N " << shape.N;
        }
      }
    }
  }
}

TEST(GemmFp4, WritesHalvesRoundedToNearest) {
  const GemmOperands operands({.N = 37, .K = 72, .group_size = 32}, 3, 5);
  for (const CpuKernels* kernels : supported_cpu_kernels()) {
    std::vector<float> C(3 * 37);
    std::vector<Half> C_half(3 * 37);
    GemmFp4 gemm = operands.gemm();
    gemm.C_float = C.data();
    ASSERT_EQ(gemm_fp4_with(*kernels, gemm, GemmRoute::batched_gemv_fp4), GemmStatus::ok);
    gemm.C_float = nullptr;
    gemm.C_half = C_half.data();
    ASSERT_EQ(gemm_fp4_with(*kernels, gemm, GemmRoute::batched_gemv_fp4), GemmStatus::ok);
    for (size_t i = 0; i < C.size(); i++) EXPECT_EQ(C_half[i].bits, float_to_half(C[i])) << kernels->name << " " << i;
  }
}

TEST(GemmFp4, GivesTheSameBitsOnAnyNumberOfThreads) {
  for (int64_t M : {1, 5, 130}) {
    const GemmOperands operands({.N = 5000, .K = 72, .group_size = 64}, M, 9);
    for (GemmRoute route : kRoutes) {
      GemmFp4 gemm = operands.gemm();
      std::vector<float> alone(static_cast<size_t>(M * 5000), -1), together(alone);
      gemm.C_float = alone.data();
      ASSERT_EQ(gemm_fp4_on_route(gemm, route), GemmStatus::ok);
      for (int num_threads : {2, 3, 7}) {
        WorkerPool pool(num_threads);
        gemm.parallel = on_pool(pool);
        gemm.C_float = together.data();
        ASSERT_EQ(gemm_fp4_on_route(gemm, route), GemmStatus::ok);
        EXPECT_EQ(alone, together) << gemm_route_name(route) << " M " << M << " threads " << num_threads;
      }
    }
  }
}

TEST(GemmFp4, CodesAndPaddingOfEveryValue) {
  // Each column one code and a scale of its own; a short last group whose scales must not be those of another.
  const int64_t N = 16, K = 40;
  GemmOperands operands({.N = N, .K = K, .group_size = 32}, 1, 1);
  for (Half& a : operands.A) a.bits = float_to_half(1);
  for (int64_t p = 0; p < K / 8; p++)
    for (int64_t n = 0; n < N; n++) operands.B[static_cast<size_t>(p * N + n)] = 0x11111111u * static_cast<uint32_t>(n);
  for (int64_t n = 0; n < N; n++) {
    operands.scales[static_cast<size_t>(n)].bits = float_to_half(1);
    operands.scales[static_cast<size_t>(N + n)].bits = 1;  // 2^-24, a subnormal half
  }
  for (const CpuKernels* kernels : supported_cpu_kernels()) {
    std::vector<float> C(16);
    GemmFp4 gemm = operands.gemm();
    gemm.C_float = C.data();
    ASSERT_EQ(gemm_fp4_with(*kernels, gemm, GemmRoute::decode_gemv_fp4_wide), GemmStatus::ok);
    for (uint32_t n = 0; n < 16; n++)
      EXPECT_FLOAT_EQ(C[n], e2m1_to_float(n) * (32 + 8 * 0x1p-24f)) << kernels->name << " code " << n;
  }
}

TEST(GemmFp4, NothingToDoIsDoneAndNothingIsWritten) {
  float C[4] = {1, 2, 3, 4};
  EXPECT_EQ(dispatch_gemm_fp4({.M = 0, .N = 4, .K = 32, .group_size = 32}), GemmStatus::ok);
  EXPECT_EQ(dispatch_gemm_fp4({.M = 4, .N = 0, .K = 32, .group_size = 32}), GemmStatus::ok);
  EXPECT_EQ(dispatch_gemm_fp4({.M = 1, .N = 4, .K = 0, .group_size = 32, .C_float = C}), GemmStatus::ok);
  for (float value : C) EXPECT_EQ(value, 0);  // an empty sum
}

TEST(GemmFp4, RefusesWhatItCannotDo) {
  const GemmOperands operands({.N = 16, .K = 32, .group_size = 32}, 1, 1);
  std::vector<float> C(16, 7);
  std::vector<Half> C_half(16);
  GemmFp4 good = operands.gemm();
  good.C_float = C.data();
  const auto with = [&](auto change) {
    GemmFp4 gemm = good;
    change(gemm);
    return dispatch_gemm_fp4(gemm);
  };
  EXPECT_EQ(with([](GemmFp4& g) { g.K = 12; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.K = -8; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.M = -1; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.N = -1; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.group_size = 16; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.group_size = 0; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.N = std::numeric_limits<int64_t>::max() / 8; }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.M = std::numeric_limits<int64_t>::max(); }), GemmStatus::bad_size);
  EXPECT_EQ(with([](GemmFp4& g) { g.A = nullptr; }), GemmStatus::null_pointer);
  EXPECT_EQ(with([](GemmFp4& g) { g.B = nullptr; }), GemmStatus::null_pointer);
  EXPECT_EQ(with([](GemmFp4& g) { g.scales = nullptr; }), GemmStatus::null_pointer);
  EXPECT_EQ(with([](GemmFp4& g) { g.C_float = nullptr; }), GemmStatus::null_pointer);
  EXPECT_EQ(with([&](GemmFp4& g) { g.C_half = C_half.data(); }), GemmStatus::bad_output);
  EXPECT_EQ(C, std::vector<float>(16, 7));
  EXPECT_EQ(with([](GemmFp4&) {}), GemmStatus::ok);
}

TEST(ChooseGemm, FollowsTheNumberOfTokens) {
  EXPECT_EQ(choose_gemm_fp4(0, 64, 64), GemmRoute::nothing);
  EXPECT_EQ(choose_gemm_fp4(64, 0, 64), GemmRoute::nothing);
  EXPECT_EQ(choose_gemm_fp4(1, 64, 64), GemmRoute::decode_gemv_fp4_wide);
  EXPECT_EQ(choose_gemm_fp4(2, 64, 64), GemmRoute::batched_gemv_fp4);
  EXPECT_EQ(choose_gemm_fp4(63, 64, 64), GemmRoute::batched_gemv_fp4);
  EXPECT_EQ(choose_gemm_fp4(64, 64, 64), GemmRoute::marlin_gemm_fp4);
  EXPECT_EQ(choose_gemm_fp4(65, 64, 64), GemmRoute::batched_gemv_fp4);  // tiles would compute 128 rows
  EXPECT_EQ(choose_gemm_fp4(512, 64, 64), GemmRoute::marlin_gemm_fp4);
}

}  // namespace
}  // namespace nibble
