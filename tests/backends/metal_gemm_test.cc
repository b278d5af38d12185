// dispatch_gemm_fp4 on a Metal device, against the slow twin; and the choice among its kernels.
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>

#include <gtest/gtest.h>

#include "backends/gemm_cases.h"
#include "backends/metal/gemm_fp4.h"
#include "backends/metal_devices.h"
#include "base/error.h"

namespace nibble {
namespace {

#ifdef NIBBLE_TEST_SLOW_BUILD  // sanitizers
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = false;
#endif

// A device with operands in its memory; C is half or float.
class DeviceGemm {
 public:
  DeviceGemm(MetalDevice& device, const GemmOperands& operands) : device_(device), kernels_(device) {
    gemm.M = operands.M;
    gemm.N = operands.N;
    gemm.K = operands.K;
    gemm.group_size = operands.group_size;
    gemm.A = put(operands.A);
    gemm.B = put(operands.B);
    gemm.scales = put(operands.scales);
  }
  template <class T>
  std::vector<T> run(const std::function<MetalGemmPlan(bool is_float)>& plan) {
    make_c<T>();
    run_gemm_fp4_plan(device_, kernels_, gemm, plan(gemm.is_float));
    return c<T>();
  }
  // On the route that the device's own choice is, or on another.
  template <class T>
  std::vector<T> run(std::optional<GemmRoute> route = {}) {
    make_c<T>();
    if (route)
      gemm_fp4_on_route(device_, kernels_, gemm, *route);
    else
      gemm_fp4(device_, kernels_, gemm);
    return c<T>();
  }

  MetalGemmFp4 gemm;

 private:
  template <class T>
  MetalBinding put(const std::vector<T>& values) {
    buffers_.push_back(device_.make_buffer(values.size() * sizeof(T)));
    if (!values.empty()) std::memcpy(buffers_.back()->data(), values.data(), values.size() * sizeof(T));
    return {buffers_.back().get(), 0};
  }
  template <class T>
  void make_c() {
    gemm.is_float = sizeof(T) == 4;
    gemm.C = put(std::vector<T>(static_cast<size_t>(gemm.M * gemm.N)));
  }
  template <class T>
  std::vector<T> c() const {
    const T* values = gemm.C.buffer->as<T>();
    return {values, values + gemm.M * gemm.N};
  }

  MetalDevice& device_;
  MetalKernels kernels_;
  std::vector<std::unique_ptr<MetalBuffer>> buffers_;
};

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
        for (const auto& device : devices_under_test())
          expect_near(DeviceGemm(*device, operands).run<Half>([&](bool) { return one_dispatch(shape); }), wanted,
                      text("wide", 1, shape));
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
  const auto device = std::move(devices_under_test()[0]);
  for (uint32_t code = 0; code < 16; code++) {
    for (uint32_t k = 0; k < 16; k++) operands.A[k].bits = float_to_half(k == code ? 1.0f : 0.0f);
    const std::vector<Half> C = DeviceGemm(*device, operands).run<Half>([&](bool) { return one_dispatch(shape); });
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
        std::vector<float> first;
        std::vector<Half> halves;
        for (const auto& device : devices_under_test()) {
          DeviceGemm gemm(*device, operands);
          const std::vector<float> C = gemm.run<float>(route);
          if (first.empty()) first = C;
          EXPECT_EQ(C, first);
          if (halves.empty()) halves = gemm.run<Half>(route);
        }
        expect_near(first, wanted, text(gemm_route_name(route), M, shape));
        for (size_t i = 0; i < first.size(); i++) ASSERT_EQ(halves[i].bits, float_to_half(first[i]));
      }
    }
  }
}

// Numbers of tokens around those where the route changes, on either backend.
constexpr int64_t kRouteTokens[] = {0, 1, 2, 3, 8, 9, 15, 63, 64, 65, 130};

TEST(MetalGemmFp4, GoesTheWayOfItsChoice) {
  for (const GemmShape& shape :
       {GemmShape{65, 136, 64}, {3, 8, 128}, {17, 40, 32}, {130, 72, 128}, {0, 64, 32}, {5, 0, 32}}) {
    for (int64_t M : kRouteTokens) {
      if (kIsSlow && M * shape.N * shape.K > 500000) continue;
      const GemmOperands operands(shape, M, static_cast<uint32_t>(M + 1));
      const std::vector<GemmElement> wanted = slow_twin(operands);
      std::vector<float> first;
      for (const auto& device : devices_under_test()) {
        DeviceGemm gemm(*device, operands);
        const std::vector<float> C = gemm.run<float>();
        if (first.empty()) {
          first = C;
          expect_near(C, wanted, text("chosen", M, shape));
          EXPECT_EQ(C, gemm.run<float>(choose_gemm_fp4(M, shape.N, kMetalGemmFp4)));
        }
        EXPECT_EQ(C, first);
      }
      // The CPU on its own route: its activations have 15 bits.
      std::vector<float> C(static_cast<size_t>(M * shape.N));
      GemmFp4 gemm = operands.gemm();
      gemm.C_float = C.data();
      ASSERT_EQ(dispatch_gemm_fp4(gemm), GemmStatus::ok);
      for (size_t i = 0; i < C.size(); i++)
        ASSERT_NEAR(C[i], wanted[i].value, wanted[i].bound / 32512 + wanted[i].magnitudes * 0x1p-20 + 1e-30)
            << text("cpu", M, shape) << " element " << i;
    }
  }
}

TEST(MetalGemmFp4, SumsOfNothingNeedNoOperands) {
  constexpr int64_t N = 4;
  for (const auto& device : devices_under_test()) {
    MetalKernels kernels(*device);
    for (const int64_t M : {1, 2, 9})
      for (const bool is_float : {false, true}) {
        const auto C = device->make_buffer(static_cast<size_t>(M * N) * (is_float ? 4 : 2));
        std::memset(C->data(), 0x55, C->size());
        gemm_fp4(*device, kernels, {.M = M, .N = N, .K = 0, .group_size = 32, .is_float = is_float, .C = {C.get(), 0}});
        EXPECT_EQ(std::vector<uint8_t>(C->data(), C->data() + C->size()), std::vector<uint8_t>(C->size()));
      }
  }
}

TEST(MetalGemmFp4, WhatDoesNotFitIsAnError) {
  const auto device = std::move(devices_under_test()[0]);
  MetalKernels kernels(*device);
  const GemmOperands operands({64, 64, 32}, 2, 1);
  const auto message = [&](const std::function<void(MetalGemmFp4&)>& change) -> std::string {
    DeviceGemm gemm(*device, operands);
    gemm.run<float>();
    change(gemm.gemm);
    try {
      gemm_fp4(*device, kernels, gemm.gemm);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([](MetalGemmFp4&) {}), "");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.M = -1; }), "gemm_fp4: M is -1, 0 or more expected");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.K = 60; }), "gemm_fp4: K is 60, a multiple of 8 expected");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.group_size = 16; }), "gemm_fp4: group_size is 16, 32, 64 or 128 expected");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.M = 3; }),
            "gemm_fp4: A begins at byte 0 of 256, 384 bytes from there on expected");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.B.first_byte = 4; }),
            "gemm_fp4: B begins at byte 4, a multiple of 16 expected");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.scales.buffer = nullptr; }),
            "gemm_fp4: scales has no buffer, 256 bytes expected");
  EXPECT_EQ(message([](MetalGemmFp4& g) { g.C.first_byte = 512; }),
            "gemm_fp4: C begins at byte 512 of 512, 512 bytes from there on expected");
}

// One choice for both backends, with a number for each. They differ where tiles save reads, which they do on a GPU only.
TEST(MetalGemmPlan, RoutesByTokensAsTheCpu) {
  std::string routes;
  for (int64_t M : kRouteTokens) {
    const GemmRoute metal = choose_gemm_fp4(M, 4096, kMetalGemmFp4), cpu = choose_gemm_fp4(M, 4096, 4096);
    EXPECT_EQ(cpu, choose_gemm_fp4(M, 4096, kCpuGemmFp4));
    routes += fmt::format("{} {}{}\n", M, gemm_route_name(metal),
                          cpu == metal ? "" : fmt::format(", cpu {}", gemm_route_name(cpu)));
  }
  EXPECT_EQ(routes,
            "0 nothing\n"
            "1 decode_gemv_fp4_wide\n"
            "2 batched_gemv_fp4\n"
            "3 batched_gemv_fp4\n"
            "8 batched_gemv_fp4\n"
            "9 marlin_gemm_fp4, cpu batched_gemv_fp4\n"
            "15 marlin_gemm_fp4, cpu batched_gemv_fp4\n"
            "63 marlin_gemm_fp4, cpu batched_gemv_fp4\n"
            "64 marlin_gemm_fp4\n"
            "65 marlin_gemm_fp4, cpu batched_gemv_fp4\n"
            "130 marlin_gemm_fp4, cpu batched_gemv_fp4\n");
  for (int64_t M = 9; M < 1000; M++) EXPECT_EQ(choose_gemm_fp4(M, 1, kMetalGemmFp4), GemmRoute::marlin_gemm_fp4) << M;
  EXPECT_EQ(choose_gemm_fp4(4, 0, kMetalGemmFp4), GemmRoute::nothing);
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
