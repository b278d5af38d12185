#include "backends/metal/metal_backend.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "backends/metal/gemm_fp4_plan.h"
#include "backends/metal/metal_fuse.h"
#include "backends/metal/metal_kernels.h"
#include "backends/metal/metal_kv_cache.h"
#include "backends/metal/metal_matrix.h"
#include "backends/metal/metal_step.h"
#ifdef __APPLE__
#include "backends/metal/apple_device.h"
#else
#include "backends/metal/executor_device.h"
#endif

namespace nibble {

namespace {

using namespace metal_fusion;

#ifdef __APPLE__
constexpr uint32_t kRoofThreadgroups = 4096;  // that read 512 MB
#else
constexpr uint32_t kRoofThreadgroups = 64;  // the executor takes 8 ns a thread
#endif
constexpr uint32_t kReadThreads = 256, kWords = 32;
constexpr size_t kNumReadThreads = size_t{kRoofThreadgroups} * kReadThreads;
constexpr size_t kRoofBytes = kNumReadThreads * kWords * 16;

// GB/s at which a kernel reads memory: the best of a few runs over more than any cache holds.
double measure_read(MetalDevice& device, MetalKernels& kernels) {
  const auto words = device.make_buffer(kRoofBytes), sums = device.make_buffer(kNumReadThreads * sizeof(uint32_t));
  const ReadMemoryArguments arguments{.words_per_thread = kWords};
  const MetalBinding buffers[] = {{words.get(), 0}, {sums.get(), 0}};
  const MetalDispatch dispatch{.kernel = &kernels.get("read_memory", {}),
                               .arguments = {reinterpret_cast<const uint8_t*>(&arguments), sizeof arguments},
                               .buffers = buffers,
                               .threadgroups = {kRoofThreadgroups},
                               .threads = kReadThreads};
  double best = 0;
  for (int run = 0; run < 5; run++) {
    const auto start = std::chrono::steady_clock::now();
    device.begin();
    device.dispatch(dispatch);
    device.finish();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(kRoofBytes) / elapsed.count() / 1e9);
  }
  return best;
}

std::vector<PlannedRoute> metal_routes() {
  const auto up_to = [](int64_t M) { return fmt::format("2 to {}", M); };
  const auto from = [](int64_t M) { return fmt::format("from {} on", M); };
  const auto gemm = [](int64_t M) { return gemm_route_name(choose_gemm_fp4(M, 1, kMetalGemmFp4)); };
  constexpr int64_t kMostBatched = kMetalGemmFp4.rows_worth_a_tile - 1;
  return {
      {"linear, gate_up", "1", "linear, gate_up", "reads a matrix once"},
      {"", up_to(kMostBlockTokens), "linear_block, gate_up_block", "once for 4 tokens, for which there are registers"},
      {"", from(kMostBlockTokens + 1), "linear_tiles", "once for 64, on simdgroup matrices"},
      {"experts", "1", "gate_up, moe_down", "reads each chosen expert once"},
      {"", "more", "gate_up_pairs, moe_down_pairs", "once for 4 of its tokens"},
      {"", fmt::format("from {} choices an expert on", kExpertTilePairs), "gate_up_tiles, moe_down_tiles",
       "once for 64 of its tokens, on simdgroup matrices"},
      {"attention", fmt::format("up to {}", kMostBlockTokens), "attention, attention_block",
       "reads a key once for 4 heads that share it; for 2 of latents, for 1 of more than 640 values"},
      {"", from(kMostBlockTokens + 1), "attention_tiles",
       "once for 32, on simdgroup matrices; heads of up to 256 values, no latents"},
      {"dispatch_gemm_fp4", "1", gemm(1), "as on the CPU"},
      {"", up_to(kMostBatched), gemm(kMostBatched), "as on the CPU"},
      {"", from(kMostBatched + 1), gemm(kMostBatched + 1),
       "B is read once for 8 tokens, or for a tile's 64; the CPU, whose tiles save nothing, takes full ones only"}};
}

class MetalBackend final : public Backend {
 public:
  MetalBackend(std::unique_ptr<MetalDevice> device, int num_threads)
      : pool_(num_threads), device_(std::move(device)), kernels_(*device_) {}

  std::string_view name() const override { return "metal"; }
  std::string description() const override { return device_->description(); }
  std::span<const KvCacheType> kv_cache_types() const override {
    static constexpr std::array kTypes = {KvCacheType::f16, KvCacheType::f32};
    return kTypes;
  }

  PackPlan plan_pack(FormatId format, int64_t E, int64_t N, int64_t K) const override {
    return plan_metal_pack(format, E, N, K);
  }
  std::vector<PlannedPhase> plan_phases(const Step& step, std::span<const WeightShape> weights,
                                        const KvCacheShape& cache_shape) const override {
    return plan_metal_step(step, weights, cache_shape).phases;
  }
  int64_t plan_scratch_bytes(const Step& step, std::span<const WeightShape> weights,
                             const KvCacheShape& cache_shape) const override {
    return plan_metal_step(step, weights, cache_shape).scratch_bytes;
  }
  std::vector<PlannedRoute> routes() const override { return metal_routes(); }
  std::unique_ptr<PackedWeight> pack(const CanonicalWeight& weight) override {
    return std::make_unique<MetalMatrix>(weight, *device_, pool_);
  }
  std::unique_ptr<PackedWeight> pack_vector(std::span<const float> values) override {
    return std::make_unique<MetalVector>(values, *device_);
  }
  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override {
    return std::make_unique<MetalKvCache>(shape, *device_);
  }
  std::unique_ptr<CompiledStep> compile(const Step& step, std::span<const PackedWeight* const> weights,
                                        const KvCacheShape& cache_shape) override {
    return compile_metal_step(step, weights, cache_shape, *device_, kernels_);
  }
  int64_t roof_bytes() const override { return static_cast<int64_t>(kRoofBytes); }
  double measure_read_gbps() override { return measure_read(*device_, kernels_); }

 private:
  WorkerPool pool_;
  std::unique_ptr<MetalDevice> device_;
  MetalKernels kernels_;
};

}  // namespace

std::unique_ptr<Backend> make_metal_backend(std::unique_ptr<MetalDevice> device, int num_threads) {
  return std::make_unique<MetalBackend>(std::move(device), num_threads);
}

std::unique_ptr<Backend> make_metal_backend(int num_threads) {
#ifdef __APPLE__
  return make_metal_backend(make_apple_device(), num_threads);
#else
  return make_metal_backend(make_executor_device({.num_threads = num_threads}), num_threads);
#endif
}

}  // namespace nibble
