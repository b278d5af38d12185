// MLX's own FP4 matrix-vector kernels against ours on the same weights, both on the executor (docs/metal.md).
#include <gtest/gtest.h>

#include "backends/metal/executor_device.h"
#include "backends/metal/metal_backend.h"
#include "backends/step_comparison.h"
#include "base/worker_pool.h"
#include "simt/metal/kernels.h"

namespace nibble {
namespace {

template <class T>
simt::BoundBuffer bound(const T* data, size_t count) {
  return {const_cast<T*>(data), count * sizeof(T)};
}

// w * x, by the kernel of that name: a threadgroup of two simdgroups has 8 rows.
std::vector<float> mlx_values(const char* name, const CanonicalWeight& w, const std::vector<float>& x,
                              simt::LaneOrder order) {
  std::vector<float> y(static_cast<size_t>(w.N), -1.0f);
  const auto K = static_cast<int32_t>(w.K), N = static_cast<int32_t>(w.N);
  const int64_t nothing[2] = {0, 0};
  simt::Arguments a;
  a.buffers[0] = bound(w.codes.data(), w.codes.size());
  a.buffers[1] = bound(w.scales.data(), w.scales.size());
  a.buffers[3] = bound(x.data(), x.size());
  a.buffers[4] = bound(y.data(), y.size());
  a.buffers[5] = bound(&K, 1);
  a.buffers[6] = bound(&N, 1);
  for (int i : {2, 7, 8, 9, 10, 11, 12, 13}) a.buffers[i] = bound(nothing, 2);  // the global scale, and batches
  WorkerPool workers(2);
  simt::dispatch(
      simt::make_pipeline(name), a,
      {.threadgroups = {1, static_cast<uint32_t>((N + 7) / 8)}, .threads = {64}, .workers = &workers, .order = order});
  return y;
}

void expect_agreement(FormatId format, const char* kernel, const std::vector<std::pair<int64_t, int64_t>>& shapes) {
  for (const auto& [N, K] : shapes) {
    SCOPED_TRACE(fmt::format("{} N {} K {}", kernel, N, K));
    CanonicalWeight w = random_weight(format, 1, N, K, 1, 3);
    w.parts = {{0, {1.0f}}};
    const std::vector<float> x = random_activations(K, 5);
    StepProgram p(1);
    const Slice row = p.step.buffer("x", K);
    p.step.logits = p.step.buffer("y", N);
    p.step.embed({.w = p.rows(x, K), .out = row});
    p.step.linear({.x = row, .w = p.matrix(w), .out = p.step.logits});
    const std::vector<float> ours = p.run(*make_metal_backend(make_executor_device({}), 1), p.one_run());
    for (simt::LaneOrder order : simt::kLaneOrders) expect_near(mlx_values(kernel, w, x, order), ours, 2e-6f);
  }
}

// N of a multiple of 8 and K of 512, the fast kernels' condition; then what is not.
TEST(MlxQmv, FastKernels) {
  expect_agreement(FormatId::mxfp4, "mlx_qmv_fast_mxfp4", {{8, 512}, {64, 1536}});
  expect_agreement(FormatId::nvfp4, "mlx_qmv_fast_nvfp4", {{8, 512}, {64, 1536}});
}

TEST(MlxQmv, AnyShape) {
  expect_agreement(FormatId::mxfp4, "mlx_qmv_mxfp4", {{3, 256}, {13, 96}, {65, 800}, {515, 512}});
  expect_agreement(FormatId::nvfp4, "mlx_qmv_nvfp4", {{3, 256}, {13, 96}, {65, 800}, {515, 512}});
}

}  // namespace
}  // namespace nibble
