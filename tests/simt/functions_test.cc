// What shaders can call (functions.metal), in every order.
#include <cmath>

#include <gtest/gtest.h>

#include "base/worker_pool.h"
#include "simt/kernel_runs.h"

namespace nibble::simt {
namespace {

TEST(SimtFunctions, GiveWhatMetalGives) {
  WorkerPool pool(2);
  for (LaneOrder order : kLaneOrders) {
    for (const char* kernel : {"simdgroup_functions", "diverged_functions", "diverged_loop", "vectors"}) {
      std::vector<float> out(192);
      dispatch(make_pipeline(kernel), buffers_of(out),
               {.threadgroups = {3}, .threads = {64}, .workers = &pool, .order = order});
      EXPECT_EQ(out, std::vector<float>(192, 1)) << kernel;
    }
  }
}

TEST(SimtFunctions, PositionsOfAnOddGrid) {
  for (LaneOrder order : kLaneOrders) {
    std::vector<float> out(15 * 22);
    dispatch(make_pipeline("positions"), buffers_of(out), {.threadgroups = {3, 2}, .threads = {5, 11}, .order = order});
    EXPECT_EQ(out, std::vector<float>(15 * 22, 1));
  }
}

TEST(SimtFunctions, Matrices) {
  std::vector<float> a(64), c(64), d(64);
  std::vector<_Float16> b(73), e(64);
  for (size_t i = 0; i < a.size(); i++) a[i] = static_cast<float>(i) - 20;
  for (size_t i = 0; i < b.size(); i++) b[i] = static_cast<_Float16>(static_cast<float>(i * i % 37) / 8);
  const auto b_at = [&](size_t r, size_t k) { return static_cast<float>(b[r * 9 + 1 + k]); };
  for (LaneOrder order : kLaneOrders) {
    dispatch(make_pipeline("matrices"), buffers_of(a, b, c, d, e), {.threads = {32}, .order = order});
    for (size_t r = 0; r < 8; r++) {
      for (size_t n = 0; n < 8; n++) {
        float product = 0, transposed = 0;
        for (size_t k = 0; k < 8; k++) product += a[r * 8 + k] * b_at(k, n);
        for (size_t k = 0; k < 8; k++) transposed += a[r * 8 + k] * b_at(n, k);
        EXPECT_EQ(c[r * 8 + n], product);
        EXPECT_EQ(d[r * 8 + n], product + transposed);
        EXPECT_EQ(static_cast<float>(e[r * 8 + n]), b_at(r, n));
      }
    }
  }
}

TEST(SimtFunctions, Atomics) {
  for (LaneOrder order : kLaneOrders) {
    uint32_t count = 0;
    float sum = 0;
    std::vector<float> out(64);
    dispatch(make_pipeline("atomics"), buffers_of(count, sum, out), {.threads = {64}, .order = order});
    EXPECT_EQ(count, 64u);
    EXPECT_EQ(sum, 32);
    EXPECT_EQ(out, std::vector<float>(64, 1));
  }
}

TEST(SimtPipelines, KeepTheirConstants) {
  const ConstantValue three[] = {function_constant(0, false), function_constant(1, uint32_t{1})};
  const ConstantValue ten[] = {function_constant(0, true), function_constant(1, uint32_t{2}), function_constant(9, 1)};
  const Pipeline first = make_pipeline("counts_float_3", three), second = make_pipeline("counts_int_5", ten);
  for (int repeat = 0; repeat < 2; repeat++) {
    std::vector<float> floats(2);
    std::vector<int> ints(2);
    Arguments a;
    a.buffers[2] = bound(floats);
    dispatch(first, a, {.threads = {2}});
    EXPECT_EQ(floats, std::vector<float>(2, 3));
    a.buffers[2] = bound(ints);
    dispatch(second, a, {.threads = {2}});
    EXPECT_EQ(ints, std::vector<int>(2, -10));
  }
}

}  // namespace
}  // namespace nibble::simt
