// The Metal kernels of dispatch_gemm_fp4, run on the executor, against the slow twin; and the choice among them.
#include <cmath>

#include <gtest/gtest.h>

#include "backends/gemm_cases.h"
#include "backends/metal/gemm_fp4_plan.h"
#include "base/error.h"
#include "base/worker_pool.h"
#include "simt/metal/kernels.h"

namespace nibble {
namespace {

#ifdef NIBBLE_TEST_SLOW_BUILD  // sanitizers
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = false;
#endif

template <class T>
simt::BoundBuffer bound(const T* data, size_t count) {
  return {const_cast<T*>(data), count * sizeof(T)};
}

// C of the plan, half or float, and nothing but C written.
template <class T>
std::vector<T> run(const MetalGemmPlan& plan, const GemmOperands& operands, simt::LaneOrder order) {
  static WorkerPool pool(2);
  std::vector<T> C(static_cast<size_t>(operands.M * operands.N));
  std::vector<float> partials(plan.partial_bytes / sizeof(float));
  for (int i = 0; i < plan.num_dispatches; i++) {
    const MetalGemmDispatch& d = plan.dispatches[i];
    const bool is_last = i + 1 == plan.num_dispatches;
    simt::Arguments a;
    const metal_arguments::GemmFp4Arguments& g = plan.arguments;
    if (is_last && i > 0) {
      a.buffers[0] = bound(partials.data(), partials.size());
      a.buffers[1] = bound(C.data(), C.size());
      a.buffers[2] = bound(&g, 1);
    } else {
      a.buffers[0] = bound(operands.A.data(), operands.A.size());
      a.buffers[1] = bound(operands.B.data(), operands.B.size());
      a.buffers[2] = bound(operands.scales.data(), operands.scales.size());
      a.buffers[3] = is_last ? bound(C.data(), C.size()) : bound(partials.data(), partials.size());
      a.buffers[4] = bound(&g, 1);
    }
    if (d.kernel == MetalGemmKernel::decode_gemv_fp4_wide) {
      const uint32_t* sizes[] = {&g.M, &g.N, &g.K, &g.group_size};
      for (size_t j = 0; j < 4; j++) a.buffers[4 + j] = bound(sizes[j], 1);
    }
    simt::dispatch(simt::make_pipeline(metal_gemm_kernel_name(d.kernel)), a,
                   {.threadgroups = {d.threadgroups[0], d.threadgroups[1], d.threadgroups[2]},
                    .threads = {d.threads},
                    .workers = &pool,
                    .order = order});
  }
  return C;
}

MetalGemmPlan one_dispatch(const GemmShape& shape) {
  MetalGemmPlan plan = plan_gemm_fp4_metal(GemmRoute::marlin_gemm_fp4, 1, shape.N, shape.K, shape.group_size, false);
  plan.dispatches[0] = {
      MetalGemmKernel::decode_gemv_fp4_wide, {static_cast<uint32_t>((shape.N + 511) / 512), 1, 1}, 128};
  return plan;
}

std::vector<GemmElement> slow_twin(const GemmOperands& operands) {
  std::vector<GemmElement> wanted;
  const GemmFp4 gemm = operands.gemm();
  for (int64_t m = 0; m < gemm.M; m++)
    for (int64_t n = 0; n < gemm.N; n++) wanted.push_back(gemm_element(gemm, m, n));
  return wanted;
}

// Sums of float32 products are within some 2^-24 of the sum of their magnitudes each; a half within 2^-11 of its value.
void expect_near(const std::vector<Half>& C, const std::vector<GemmElement>& wanted, const std::string& what) {
  ASSERT_EQ(C.size(), wanted.size());
  for (size_t i = 0; i < C.size(); i++) {
    const double tolerance = std::fabs(wanted[i].value) * 0x1p-11 + wanted[i].magnitudes * 0x1p-20 + 0x1p-24;
    ASSERT_NEAR(half_to_float(C[i].bits), wanted[i].value, tolerance) << what << " element " << i;
  }
}
void expect_near(const std::vector<float>& C, const std::vector<GemmElement>& wanted, const std::string& what) {
  ASSERT_EQ(C.size(), wanted.size());
  for (size_t i = 0; i < C.size(); i++)
    ASSERT_NEAR(C[i], wanted[i].value, wanted[i].magnitudes * 0x1p-20 + 1e-30) << what << " element " << i;
}

std::string text(const char* route, int64_t M, const GemmShape& s) {
  return fmt::format("{} M {} N {} K {} group {}", route, M, s.N, s.K, s.group_size);
}

TEST(MetalGemmFp4, TheWideKernelGivesTheProduct) {
  uint32_t seed = 1;
  for (int64_t N : {1, 3, 511, 512, 515, 2048}) {
    for (int64_t K : {8, 40, 128, 1160, 8192}) {
      for (int64_t group_size : {32, 64, 128}) {
        if (kIsSlow && N * K > 1000000) continue;
        const GemmShape shape{N, K, group_size};
        const GemmOperands operands(shape, 1, seed++);
        const std::vector<GemmElement> wanted = slow_twin(operands);
        for (simt::LaneOrder order : simt::kLaneOrders)
          expect_near(run<Half>(one_dispatch(shape), operands, order), wanted, text("wide", 1, shape));
      }
    }
  }
}

// One column for each finite scale, one k for each code, and A that picks one k: the half nearest to code * scale, to the bit.
TEST(MetalGemmFp4, EveryCodeTimesEveryScale) {
  std::vector<uint16_t> all;
  for (uint32_t bits = 0; bits < 0x10000; bits++)
    if ((bits & 0x7C00) != 0x7C00) all.push_back(static_cast<uint16_t>(bits));
  const GemmShape shape{static_cast<int64_t>(all.size()), 16, 32};
  GemmOperands operands(shape, 1, 1);
  for (size_t n = 0; n < all.size(); n++) {
    operands.B[n] = 0x76543210;
    operands.B[all.size() + n] = 0xFEDCBA98;
    operands.scales[n].bits = all[n];
  }
  for (uint32_t code = 0; code < 16; code++) {
    for (uint32_t k = 0; k < 16; k++) operands.A[k].bits = float_to_half(k == code ? 1.0f : 0.0f);
    const std::vector<Half> C = run<Half>(one_dispatch(shape), operands, simt::LaneOrder::ascending);
    for (size_t n = 0; n < all.size(); n++) {
      const float wanted = e2m1_to_float(code) * half_to_float(all[n]);
      ASSERT_EQ(half_to_float(C[n].bits), half_to_float(float_to_half(wanted)))
          << "code " << code << " scale " << all[n];
    }
  }
}

TEST(MetalGemmFp4, EveryRouteGivesTheProduct) {
  uint32_t seed = 100;
  constexpr GemmShape shapes[] = {{1, 8, 32},    {3, 32, 32},    {17, 48, 32},   {63, 64, 128},
                                  {65, 136, 64}, {515, 520, 32}, {130, 264, 128}};
  for (const GemmShape& shape : shapes) {
    for (int64_t M : {1, 2, 3, 5, 8, 9, 65}) {
      if (M * shape.N * shape.K > (kIsSlow ? 500000 : 2500000)) continue;
      const GemmOperands operands(shape, M, seed++);
      const std::vector<GemmElement> wanted = slow_twin(operands);
      for (GemmRoute route :
           {GemmRoute::decode_gemv_fp4_wide, GemmRoute::batched_gemv_fp4, GemmRoute::marlin_gemm_fp4}) {
        const auto plan = [&](bool is_float) {
          return plan_gemm_fp4_metal(route, M, shape.N, shape.K, shape.group_size, is_float);
        };
        const std::vector<float> first = run<float>(plan(true), operands, simt::LaneOrder::ascending);
        expect_near(first, wanted, text(gemm_route_name(route), M, shape));
        EXPECT_EQ(run<float>(plan(true), operands, simt::LaneOrder::descending), first);
        EXPECT_EQ(run<float>(plan(true), operands, simt::LaneOrder::shuffled), first);
        const std::vector<Half> halves = run<Half>(plan(false), operands, simt::LaneOrder::shuffled);
        for (size_t i = 0; i < first.size(); i++) ASSERT_EQ(halves[i].bits, float_to_half(first[i]));
      }
    }
  }
}

TEST(MetalGemmPlan, RoutesByTokens) {
  EXPECT_EQ(choose_gemm_fp4_metal(0, 4096, 4096), GemmRoute::nothing);
  EXPECT_EQ(choose_gemm_fp4_metal(4, 0, 4096), GemmRoute::nothing);
  EXPECT_EQ(choose_gemm_fp4_metal(1, 4096, 4096), GemmRoute::decode_gemv_fp4_wide);
  EXPECT_EQ(choose_gemm_fp4_metal(2, 4096, 4096), GemmRoute::batched_gemv_fp4);
  EXPECT_EQ(choose_gemm_fp4_metal(8, 4096, 4096), GemmRoute::batched_gemv_fp4);
  EXPECT_EQ(choose_gemm_fp4_metal(9, 4096, 4096), GemmRoute::marlin_gemm_fp4);
}

TEST(MetalGemmPlan, SplitsKWhereColumnsAreFew) {
  EXPECT_EQ(choose_split_k(2048, 2048, 32), 128);   // 4 × 16 threadgroups rather than 4
  EXPECT_EQ(choose_split_k(2048, 16384, 32), 256);  // 4 × 64
  EXPECT_EQ(choose_split_k(2048, 64, 32), 64);
  EXPECT_EQ(choose_split_k(2048, 8, 64), 64);
  EXPECT_EQ(choose_split_k(151936, 2048, 64), 2048);  // 297 threadgroups without
  const MetalGemmPlan vocabulary = plan_gemm_fp4_metal(GemmRoute::decode_gemv_fp4_wide, 1, 151936, 2048, 64, false);
  ASSERT_EQ(vocabulary.num_dispatches, 1);
  EXPECT_EQ(vocabulary.dispatches[0].kernel, MetalGemmKernel::decode_gemv_fp4_wide);
  EXPECT_EQ(vocabulary.dispatches[0].threadgroups[0], 297u);
  const MetalGemmPlan small = plan_gemm_fp4_metal(GemmRoute::batched_gemv_fp4, 3, 2048, 2048, 32, false);
  ASSERT_EQ(small.num_dispatches, 2);
  EXPECT_EQ(small.dispatches[0].kernel, MetalGemmKernel::gemv_fp4_split_4);
  EXPECT_EQ(small.dispatches[0].threadgroups[0], 4u);
  EXPECT_EQ(small.dispatches[0].threadgroups[1], 16u);
  EXPECT_EQ(small.dispatches[0].threadgroups[2], 1u);
  EXPECT_EQ(small.dispatches[1].kernel, MetalGemmKernel::sum_splits_half);
  EXPECT_EQ(small.partial_bytes, 16u * 3 * 2048 * 4);
  EXPECT_THROW(plan_gemm_fp4_metal(GemmRoute::marlin_gemm_fp4, 1 << 20, 1 << 20, 64, 32, false), InputError);
}

}  // namespace
}  // namespace nibble
