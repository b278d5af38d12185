#include "backends/cpu/cpu_backend.h"

#include "backends/cpu/cpu_kv_cache.h"
#include "backends/cpu/cpu_scratch.h"
#include "backends/cpu/cpu_step.h"
#include "backends/cpu/cpu_vector.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/packed_layout.h"
#include "base/error.h"

namespace nibble {

namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(std::vector<WorkerTeam> teams, int activation_bits, int64_t roof_bytes)
      : pool_(std::move(teams)), activation_bits_(activation_bits), roof_bytes_(roof_bytes) {}

  std::string_view name() const override { return "cpu"; }
  std::string description() const override {
    const size_t num_nodes = pool_.teams().size();
    return fmt::format("{} kernels, activations in {} bits, {} thread{}{}", cpu_kernels().name, activation_bits_,
                       pool_.num_threads(), pool_.num_threads() == 1 ? "" : "s",
                       num_nodes == 1 ? "" : fmt::format(" on {} NUMA nodes", num_nodes));
  }
  std::span<const KvCacheType> kv_cache_types() const override {
    static constexpr std::array kTypes = {KvCacheType::f16, KvCacheType::f32, KvCacheType::q8_0};
    return kTypes;
  }

  PackPlan plan_pack(FormatId format, int64_t E, int64_t N, int64_t K) const override {
    return nibble::plan_pack(format, E, N, K);
  }
  std::unique_ptr<PackedWeight> pack(const CanonicalWeight& weight) override {
    return std::make_unique<PackedMatrix>(weight, &pool_, &arena_);
  }
  std::unique_ptr<PackedWeight> pack_vector(std::span<const float> values) override {
    return std::make_unique<CpuVector>(values);
  }
  std::string packed_layout() const override { return fmt::format("cpu {}", kPackedLayoutVersion); }
  std::unique_ptr<PackedWeight> adopt(FormatId format, int64_t E, int64_t N, int64_t K,
                                      const std::shared_ptr<const uint8_t>& bytes) override {
    return std::make_unique<PackedMatrix>(format, E, N, K, bytes);
  }
  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override {
    return std::make_unique<CpuKvCache>(shape);
  }
  int64_t kv_cache_bytes(const KvCacheShape& shape) const override { return CpuKvCache::bytes(shape); }
  std::unique_ptr<CompiledStep> compile(const Step& step, std::span<const PackedWeight* const> weights,
                                        const KvCacheShape& cache_shape) override {
    return compile_cpu_step(step, weights, cache_shape, pool_, activation_bits_);
  }
  int64_t plan_scratch_bytes(const Step& step, std::span<const WeightShape> weights,
                             const KvCacheShape& cache_shape) const override {
    return cpu_scratch_bytes(step, weights, cache_shape.max_len, pool_.num_threads());
  }
  int64_t roof_bytes() const override { return roof_bytes_; }
  double measure_read_gbps() override {
    if (!roof_) roof_ = std::make_unique<ReadRoof>(pool_, roof_bytes_);
    return roof_->measure_gbps(pool_);
  }

 private:
  WorkerPool pool_;
  HugePageArena arena_;  // of packed matrices
  const int activation_bits_;
  const int64_t roof_bytes_;
  std::unique_ptr<ReadRoof> roof_;  // its buffer is made when it is first asked for
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(std::vector<WorkerTeam> teams, int activation_bits, int64_t roof_bytes) {
  if (activation_bits != kActivationBits && activation_bits != 8)
    throw_input_error("activations of {} bits: there are kernels for {} and 8", activation_bits, kActivationBits);
  return std::make_unique<CpuBackend>(std::move(teams), activation_bits, roof_bytes);
}

std::unique_ptr<Backend> make_cpu_backend(int num_threads, int activation_bits) {
  return make_cpu_backend({{0, std::max(1, num_threads), {}}}, activation_bits);
}

}  // namespace nibble
