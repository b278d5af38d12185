#include "backends/metal/executor_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/worker_pool.h"
#include "simt/metal/kernels.h"

namespace nibble {

namespace {

// To the byte, so that AddressSanitizer sees what a kernel reads past its end.
class ExecutorBuffer final : public MetalBuffer {
 public:
  explicit ExecutorBuffer(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, std::max<size_t>(bytes, 1)) != 0)
      throw_run_error("out of memory: {} bytes were asked for", bytes);
    data_ = static_cast<uint8_t*>(memory);
    size_ = bytes;
    std::memset(data_, 0, bytes);
  }
  ~ExecutorBuffer() override { std::free(data_); }
};

struct ExecutorKernel final : MetalKernel {
  simt::Pipeline pipeline;
};

// Dispatches wait until a barrier or the end, then run one after the other; in which order, goes like that of the lanes, so
// that a result that needs a barrier which is not there depends on it.
class ExecutorDevice final : public MetalDevice {
 public:
  explicit ExecutorDevice(const ExecutorOptions& options) : pool_(options.num_threads), order_(options.order) {}

  std::string description() const override {
    return fmt::format("emulated on the CPU, {} thread{}", pool_.num_threads(), pool_.num_threads() == 1 ? "" : "s");
  }
  std::unique_ptr<MetalBuffer> make_buffer(size_t bytes) override { return std::make_unique<ExecutorBuffer>(bytes); }
  std::unique_ptr<MetalKernel> make_kernel(std::string_view name, const FunctionConstants& constants) override {
    std::vector<simt::ConstantValue> values;
    for (size_t i = 0; i < constants.size(); i++)
      values.push_back(simt::function_constant(static_cast<int>(i), constants[i]));
    auto kernel = std::make_unique<ExecutorKernel>();
    kernel->pipeline = simt::make_pipeline(name, values);
    return kernel;
  }
  void begin() override { waiting_.clear(); }
  void dispatch(const MetalDispatch& d) override { waiting_.push_back(d); }
  void barrier() override {
    if (order_ == simt::LaneOrder::descending) std::ranges::reverse(waiting_);
    if (order_ == simt::LaneOrder::shuffled) std::ranges::shuffle(waiting_, random_);
    for (const MetalDispatch& d : waiting_) run(d);
    waiting_.clear();
  }
  void finish() override { barrier(); }

 private:
  void run(const MetalDispatch& d) {
    simt::Arguments arguments;
    const size_t first = d.arguments.empty() ? 0 : 1;
    if (first == 1) arguments.buffers[0] = {const_cast<uint8_t*>(d.arguments.data()), d.arguments.size()};
    for (size_t i = 0; i < d.buffers.size(); i++)
      arguments.buffers[i + first] = {d.buffers[i].buffer->data() + d.buffers[i].first_byte,
                                      d.buffers[i].buffer->size() - d.buffers[i].first_byte};
    simt::dispatch(static_cast<const ExecutorKernel*>(d.kernel)->pipeline, arguments,
                   {.threadgroups = {d.threadgroups.x, d.threadgroups.y, d.threadgroups.z},
                    .threads = {d.threads, 1, 1},
                    .workers = &pool_,
                    .order = order_});
  }

  WorkerPool pool_;
  simt::LaneOrder order_;
  std::vector<MetalDispatch> waiting_;
  std::mt19937 random_{1};
};

}  // namespace

std::unique_ptr<MetalDevice> make_executor_device(const ExecutorOptions& options) {
  return std::make_unique<ExecutorDevice>(options);
}

}  // namespace nibble
