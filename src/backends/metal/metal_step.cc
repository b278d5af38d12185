#include "backends/metal/metal_step.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "backends/metal/metal_kv_cache.h"
#include "backends/metal/metal_matrix.h"
#include "backends/metal/record_step.h"

namespace nibble {

namespace {

using Clock = std::chrono::steady_clock;

class MetalStep final : public CompiledStep {
 public:
  MetalStep(const Step& step, std::span<const PackedWeight* const> weights, const KvCacheShape& cache_shape,
            MetalDevice& device, MetalKernels& kernels)
      : step_(step),
        device_(device),
        scratch_(step_, device),
        recorded_(record_step(step_, weights, cache_shape, device, kernels, scratch_)) {}

  void run(const StepInputs& inputs, KvCache& cache, std::span<float> logits) override {
    auto& metal_cache = static_cast<MetalKvCache&>(cache);
    std::ranges::copy(inputs.tokens, scratch_.tokens->as<int32_t>());
    std::ranges::copy(inputs.pos, scratch_.pos->as<int32_t>());
    std::ranges::copy(inputs.sequence, scratch_.sequence->as<int32_t>());
    for (size_t r = 0; r < scratch_.turns.size(); r++) fill_turns(r, inputs.pos);
    for (RecordedDispatch& d : recorded_.dispatches)
      for (const CachePlane& plane : d.planes)
        d.buffers[plane.binding] = {(plane.is_k ? metal_cache.k : metal_cache.v)[plane.layer].get(), 0};
    if (profiling_) {
      run_one_by_one();
    } else {
      device_.begin();
      for (const RecordedDispatch& d : recorded_.dispatches) {
        if (d.needs_barrier) device_.barrier();
        encode(d);
      }
      device_.finish();
    }
    const auto b = static_cast<size_t>(step_.logits.buffer);
    const int64_t num_rows = step_.num_rows(step_.buffers[b].rows);
    for (int64_t m = 0; m < num_rows; m++)
      std::copy_n(scratch_.buffers[b]->as<float>() + m * scratch_.strides[b] + step_.logits.first, step_.logits.width,
                  logits.data() + m * step_.logits.width);
  }

  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const RecordedDispatch& d : recorded_.dispatches) bytes += d.info.weight_bytes;
    return bytes;
  }
  int64_t last_weight_bytes() const override {
    int64_t bytes = weight_bytes();
    for (const UsedExperts& used : recorded_.used_experts)
      bytes += bytes_read(used) - recorded_.dispatches[used.dispatch].info.weight_bytes;
    return bytes;
  }
  int64_t scratch_bytes() const override { return scratch_.bytes(); }
  std::vector<Phase> phases() const override {
    std::vector<Phase> infos;
    for (const RecordedDispatch& d : recorded_.dispatches) infos.push_back(d.info);
    return infos;
  }
  void set_profiling(bool on) override { profiling_ = on; }

 private:
  // ---- a run ----

  void encode(const RecordedDispatch& d) {
    device_.dispatch({.kernel = d.kernel,
                      .arguments = d.arguments,
                      .buffers = d.buffers,
                      .threadgroups = d.threadgroups,
                      .threads = d.threads});
  }
  // A command buffer for each dispatch: their times include what it costs to begin and to end one.
  void run_one_by_one() {
    for (RecordedDispatch& d : recorded_.dispatches) {
      const auto start = Clock::now();
      device_.begin();
      encode(d);
      device_.finish();
      d.info.seconds += std::chrono::duration<double>(Clock::now() - start).count();
      d.info.read_bytes += d.info.weight_bytes;
    }
    for (const UsedExperts& used : recorded_.used_experts) {
      Phase& info = recorded_.dispatches[used.dispatch].info;
      info.read_bytes += bytes_read(used) - info.weight_bytes;
    }
  }
  // The cosine and sine of each token's angles, [M, pairs] each. On the host, in double: angles may be large.
  void fill_turns(size_t r, std::span<const int32_t> pos) {
    const Rotation& rotation = step_.rotations[r];
    const size_t pairs = rotation.inv_freq.size();
    float* cosine = scratch_.turns[r]->as<float>();
    float* sine = cosine + static_cast<size_t>(step_.M) * pairs;
    for (size_t m = 0; m < pos.size(); m++) {
      for (size_t i = 0; i < pairs; i++) {
        const double angle = static_cast<double>(pos[m]) * rotation.inv_freq[i];
        cosine[m * pairs + i] = static_cast<float>(std::cos(angle) * rotation.scale);
        sine[m * pairs + i] = static_cast<float>(std::sin(angle) * rotation.scale);
      }
    }
  }
  static int64_t bytes_read(const UsedExperts& used) {
    const auto* experts = used.experts->as<uint32_t>();
    std::vector<uint32_t> chosen(experts, experts + used.count);
    std::ranges::sort(chosen);
    return used.bytes_of_one * static_cast<int64_t>(std::ranges::unique(chosen).begin() - chosen.begin());
  }

  const Step step_;
  MetalDevice& device_;
  MetalScratch scratch_;
  RecordedStep recorded_;
  bool profiling_ = false;
};

// A device on which steps are compiled and never run: it has neither memory nor kernels.
class PlanDevice final : public MetalDevice {
 public:
  std::string description() const override { return "none"; }
  std::unique_ptr<MetalBuffer> make_buffer(size_t) override { return std::make_unique<NoBuffer>(); }
  std::unique_ptr<MetalKernel> make_kernel(std::string_view, const FunctionConstants&) override {
    return std::make_unique<MetalKernel>();
  }
  void begin() override {}
  void dispatch(const MetalDispatch&) override {}
  void barrier() override {}
  void finish() override {}

 private:
  struct NoBuffer final : MetalBuffer {};
};

}  // namespace

std::vector<PlannedPhase> plan_metal_step(const Step& step, std::span<const WeightShape> weights,
                                          const KvCacheShape& cache_shape) {
  std::vector<std::unique_ptr<PackedWeight>> packed;
  std::vector<const PackedWeight*> pointers;
  for (const WeightShape& w : weights) {
    if (w.is_vector)
      packed.push_back(std::make_unique<MetalVector>());
    else
      packed.push_back(std::make_unique<MetalMatrix>(w.format, w.E, w.N, w.K));
    pointers.push_back(packed.back().get());
  }
  PlanDevice device;
  MetalKernels kernels(device);
  MetalScratch scratch(step, device);
  std::vector<PlannedPhase> phases;
  for (RecordedDispatch& d : record_step(step, pointers, cache_shape, device, kernels, scratch).dispatches)
    phases.push_back(std::move(d.plan));
  return phases;
}

std::unique_ptr<CompiledStep> compile_metal_step(const Step& step, std::span<const PackedWeight* const> weights,
                                                 const KvCacheShape& cache_shape, MetalDevice& device,
                                                 MetalKernels& kernels) {
  return std::make_unique<MetalStep>(step, weights, cache_shape, device, kernels);
}

}  // namespace nibble
