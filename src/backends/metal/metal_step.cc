#include "backends/metal/metal_step.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "backends/metal/choose_token.h"
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
        kernels_(kernels),
        scratch_(step_, device),
        recorded_(record_step(step_, weights, cache_shape, device, kernels, scratch_)) {}

  void run(const StepInputs& inputs, KvCache& cache, std::span<float> logits) override {
    write_inputs(inputs, cache);
    fill_all_turns(inputs.pos, 0);
    if (profiling_) {
      run_one_by_one();
    } else {
      device_.begin();
      for (const RecordedDispatch& d : recorded_.dispatches) {
        if (d.needs_barrier) device_.barrier();
        encode(d, d.buffers);
      }
      device_.finish();
    }
    const auto b = static_cast<size_t>(step_.logits.buffer);
    const int64_t num_rows = step_.num_rows(step_.buffers[b].rows);
    for (int64_t m = 0; m < num_rows; m++)
      std::copy_n(scratch_.buffers[b]->as<float>() + m * scratch_.strides[b] + step_.logits.first, step_.logits.width,
                  logits.data() + m * step_.logits.width);
  }

  int64_t max_ahead() const override { return scratch_.num_ahead > 1 && !profiling_ ? scratch_.num_ahead : 0; }
  int64_t run_ahead(const StepInputs& inputs, KvCache& cache, const TokenChoice& choice, std::span<const double> draws,
                    std::span<int32_t> tokens) override {
    if (max_ahead() == 0 || !TokenChooser::knows(choice, step_.logits.width)) return 0;
    if (!chooser_)
      chooser_.emplace(TokenChooser::Rows{.logits = logits_at(),
                                          .num_rows = step_.M,
                                          .stride = scratch_.strides[static_cast<size_t>(step_.logits.buffer)],
                                          .vocab_size = step_.logits.width,
                                          .next_tokens = {scratch_.tokens.get(), 0}},
                       device_, kernels_);
    write_inputs(inputs, cache);
    chooser_->prepare(choice, draws);
    const size_t num_runs = tokens.size() / static_cast<size_t>(step_.M);
    bind_ahead(inputs.pos, num_runs);
    device_.begin();
    auto buffers = ahead_buffers_.begin();
    for (size_t i = 0; i < num_runs; i++) {
      for (const RecordedDispatch& d : recorded_.dispatches) {
        if (d.needs_barrier || &d == recorded_.dispatches.data()) device_.barrier();
        encode(d, {buffers, d.buffers.size()});
        buffers += static_cast<std::ptrdiff_t>(d.buffers.size());
      }
      chooser_->encode(i);
    }
    device_.finish();
    return chooser_->read(tokens);
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
  int64_t scratch_bytes() const override { return scratch_.bytes() + (chooser_ ? chooser_->bytes() : 0); }
  std::vector<Phase> phases() const override {
    std::vector<Phase> infos;
    for (const RecordedDispatch& d : recorded_.dispatches) infos.push_back(d.info);
    return infos;
  }
  void set_profiling(bool on) override { profiling_ = on; }

 private:
  // ---- a run ----

  // The same for each of the runs of a command buffer.
  void write_inputs(const StepInputs& inputs, KvCache& cache) {
    auto& metal_cache = static_cast<MetalKvCache&>(cache);
    std::ranges::copy(inputs.tokens, scratch_.tokens->as<int32_t>());
    std::ranges::copy(inputs.pos, scratch_.pos->as<int32_t>());
    std::ranges::copy(inputs.sequence, scratch_.sequence->as<int32_t>());
    for (RecordedDispatch& d : recorded_.dispatches)
      for (const CachePlane& plane : d.planes)
        d.buffers[plane.binding] = {(plane.is_k ? metal_cache.k : metal_cache.v)[plane.layer].get(), 0};
  }
  void encode(const RecordedDispatch& d, std::span<const MetalBinding> buffers) {
    device_.dispatch({.kernel = d.kernel,
                      .arguments = d.arguments,
                      .buffers = buffers,
                      .threadgroups = d.threadgroups,
                      .threads = d.threads});
  }
  MetalBinding logits_at() const {
    return {scratch_.buffers[static_cast<size_t>(step_.logits.buffer)].get(),
            static_cast<size_t>(step_.logits.first) * sizeof(float)};
  }
  // The buffers of `count` runs, the first of which has the positions `pos`: each has its own positions and angles, and all
  // else in common.
  void bind_ahead(std::span<const int32_t> pos, size_t count) {
    ahead_buffers_.clear();
    for (size_t i = 0; i < count; i++) {
      const std::span<int32_t> own(scratch_.pos->as<int32_t>() + i * pos.size(), pos.size());
      std::ranges::transform(pos, own.begin(), [&](int32_t first) { return first + static_cast<int32_t>(i); });
      fill_all_turns(own, i);
      for (const RecordedDispatch& d : recorded_.dispatches) {
        for (MetalBinding b : d.buffers) {
          if (b.buffer == scratch_.pos.get()) b.first_byte += i * pos.size_bytes();
          for (size_t r = 0; r < scratch_.turns.size(); r++)
            if (b.buffer == scratch_.turns[r].get()) b.first_byte += i * turns_of_run(r) * sizeof(float);
          ahead_buffers_.push_back(b);
        }
      }
    }
  }
  // A command buffer for each dispatch: their times include what it costs to begin and to end one.
  void run_one_by_one() {
    for (RecordedDispatch& d : recorded_.dispatches) {
      const auto start = Clock::now();
      device_.begin();
      encode(d, d.buffers);
      device_.finish();
      d.info.seconds += std::chrono::duration<double>(Clock::now() - start).count();
      d.info.read_bytes += d.info.weight_bytes;
    }
    for (const UsedExperts& used : recorded_.used_experts) {
      Phase& info = recorded_.dispatches[used.dispatch].info;
      info.read_bytes += bytes_read(used) - info.weight_bytes;
    }
  }
  size_t turns_of_run(size_t r) const { return 2 * static_cast<size_t>(step_.M) * step_.rotations[r].inv_freq.size(); }
  // For the given run of a command buffer.
  void fill_all_turns(std::span<const int32_t> pos, size_t run) {
    for (size_t r = 0; r < scratch_.turns.size(); r++) {
      float* cosine = scratch_.turns[r]->as<float>() + run * turns_of_run(r);
      fill_turns(step_.rotations[r], pos, cosine, cosine + turns_of_run(r) / 2);
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
  MetalKernels& kernels_;
  MetalScratch scratch_;
  RecordedStep recorded_;
  std::optional<TokenChooser> chooser_;      // from the first run ahead on
  std::vector<MetalBinding> ahead_buffers_;  // of each dispatch of each run
  bool profiling_ = false;
};

// A device on which steps are compiled and never run: it has neither memory nor kernels.
class PlanDevice final : public MetalDevice {
 public:
  std::string description() const override { return "none"; }
  std::unique_ptr<MetalBuffer> make_buffer(size_t size) override { return std::make_unique<NoBuffer>(size); }
  std::unique_ptr<MetalKernel> make_kernel(std::string_view, const FunctionConstants&) override {
    return std::make_unique<MetalKernel>();
  }
  void begin() override {}
  void dispatch(const MetalDispatch&) override {}
  void barrier() override {}
  void finish() override {}

 private:
  struct NoBuffer final : MetalBuffer {
    explicit NoBuffer(size_t size) { size_ = size; }
  };
};

}  // namespace

MetalStepPlan plan_metal_step(const Step& step, std::span<const WeightShape> weights, const KvCacheShape& cache_shape) {
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
  return {std::move(phases), scratch.bytes()};
}

std::unique_ptr<CompiledStep> compile_metal_step(const Step& step, std::span<const PackedWeight* const> weights,
                                                 const KvCacheShape& cache_shape, MetalDevice& device,
                                                 MetalKernels& kernels) {
  return std::make_unique<MetalStep>(step, weights, cache_shape, device, kernels);
}

}  // namespace nibble
