#include "backends/metal/apple_device.h"

#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>
#include <cstring>
#include <mutex>
#include <vector>

#include "backends/metal/shader_text.h"
#include "base/error.h"

namespace nibble {

namespace {

std::string text_of(const NS::Error* error) {
  return error != nullptr ? error->localizedDescription()->utf8String() : "no reason is given";
}

NS::SharedPtr<NS::String> string_of(std::string_view text) {
  return NS::TransferPtr(NS::String::alloc()->init(std::string(text).c_str(), NS::UTF8StringEncoding));
}

// Residency sets and the choice of how exact mathematics are came with macOS 15.
bool is_macos_15() { return NS::ProcessInfo::processInfo()->isOperatingSystemAtLeastVersion({15, 0, 0}); }

// The buffers that all command buffers of a queue may use, kept resident, so that encoding need not name them.
class Residency {
 public:
  Residency(MTL::Device* device, MTL::CommandQueue* queue) {
    if (!is_macos_15()) return;
    auto descriptor = NS::TransferPtr(MTL::ResidencySetDescriptor::alloc()->init());
    NS::Error* error = nullptr;
    set_ = NS::TransferPtr(device->newResidencySet(descriptor.get(), &error));
    if (!set_) throw_run_error("Metal: no residency set: {}", text_of(error));
    queue->addResidencySet(set_.get());
  }
  void add(MTL::Buffer* buffer) {
    change([&] { set_->addAllocation(buffer); });
  }
  void remove(MTL::Buffer* buffer) {
    change([&] { set_->removeAllocation(buffer); });
  }
  void commit() {
    const std::lock_guard lock(mutex_);
    if (!has_changed_) return;
    set_->commit();
    set_->requestResidency();
    has_changed_ = false;
  }

 private:
  template <class Change>
  void change(Change how) {
    const std::lock_guard lock(mutex_);
    if (!set_) return;
    how();
    has_changed_ = true;
  }
  std::mutex mutex_;
  NS::SharedPtr<MTL::ResidencySet> set_;
  bool has_changed_ = false;
};

class AppleBuffer final : public MetalBuffer {
 public:
  AppleBuffer(NS::SharedPtr<MTL::Buffer> memory, size_t bytes, std::shared_ptr<Residency> residency)
      : memory_(std::move(memory)), residency_(std::move(residency)) {
    data_ = static_cast<uint8_t*>(memory_->contents());
    size_ = bytes;
    std::memset(data_, 0, bytes);
    residency_->add(memory_.get());
  }
  ~AppleBuffer() override { residency_->remove(memory_.get()); }
  MTL::Buffer* get() const { return memory_.get(); }

 private:
  NS::SharedPtr<MTL::Buffer> memory_;
  std::shared_ptr<Residency> residency_;
};

struct AppleKernel final : MetalKernel {
  NS::SharedPtr<MTL::ComputePipelineState> pipeline;
};

class AppleDevice final : public MetalDevice {
 public:
  explicit AppleDevice(NS::SharedPtr<MTL::Device> device)
      : device_(std::move(device)),
        queue_(NS::TransferPtr(device_->newCommandQueue())),
        residency_(std::make_shared<Residency>(device_.get(), queue_.get())) {
    for (const ShaderText& shader : kShaderTexts) libraries_.push_back(compile(shader));
  }

  std::string description() const override { return device_->name()->utf8String(); }

  std::unique_ptr<MetalBuffer> make_buffer(size_t bytes) override {
    const size_t length = bytes > 0 ? bytes : 1;
    if (length > device_->maxBufferLength())
      throw_run_error("Metal: a buffer of {} bytes; this GPU has at most {}", length, device_->maxBufferLength());
    auto memory = NS::TransferPtr(
        device_->newBuffer(length, MTL::ResourceStorageModeShared | MTL::ResourceHazardTrackingModeUntracked));
    if (!memory) throw_run_error("out of memory: {} bytes were asked for on {}", length, description());
    return std::make_unique<AppleBuffer>(std::move(memory), bytes, residency_);
  }

  std::unique_ptr<MetalKernel> make_kernel(std::string_view name, const FunctionConstants& constants) override {
    auto values = NS::TransferPtr(MTL::FunctionConstantValues::alloc()->init());
    for (size_t i = 0; i < constants.size(); i++)
      values->setConstantValue(&constants[i], MTL::DataTypeBool, static_cast<NS::UInteger>(i));
    const auto function_name = string_of(name);
    NS::Error* error = nullptr;
    for (const auto& library : libraries_) {
      auto function = NS::TransferPtr(library->newFunction(function_name.get(), values.get(), &error));
      if (!function) continue;  // it is in another file
      auto kernel = std::make_unique<AppleKernel>();
      kernel->pipeline = NS::TransferPtr(device_->newComputePipelineState(function.get(), &error));
      if (!kernel->pipeline) break;
      return kernel;
    }
    throw_run_error("{}: kernel {}: {}", description(), name, text_of(error));
  }

  // The encoder is concurrent: what must wait is said by barriers.
  void begin() override {
    pool_ = NS::TransferPtr(NS::AutoreleasePool::alloc()->init());
    residency_->commit();
    commands_ = queue_->commandBufferWithUnretainedReferences();
    encoder_ = commands_->computeCommandEncoder(MTL::DispatchTypeConcurrent);
  }
  void dispatch(const MetalDispatch& d) override {
    encoder_->setComputePipelineState(static_cast<const AppleKernel*>(d.kernel)->pipeline.get());
    const size_t first = d.arguments.empty() ? 0 : 1;
    if (first == 1) encoder_->setBytes(d.arguments.data(), d.arguments.size(), 0);
    for (size_t i = 0; i < d.buffers.size(); i++)
      encoder_->setBuffer(static_cast<const AppleBuffer*>(d.buffers[i].buffer)->get(), d.buffers[i].first_byte,
                          i + first);
    encoder_->dispatchThreadgroups({d.threadgroups.x, d.threadgroups.y, d.threadgroups.z}, {d.threads, 1, 1});
  }
  void barrier() override { encoder_->memoryBarrier(MTL::BarrierScopeBuffers); }
  void finish() override {
    encoder_->endEncoding();
    commands_->commit();
    commands_->waitUntilCompleted();
    const bool is_good = commands_->status() == MTL::CommandBufferStatusCompleted;
    const std::string error = is_good ? "" : text_of(commands_->error());
    pool_.reset();
    if (!is_good) throw_run_error("{}: a command buffer failed: {}", description(), error);
  }

 private:
  NS::SharedPtr<MTL::Library> compile(const ShaderText& shader) {
    auto options = NS::TransferPtr(MTL::CompileOptions::alloc()->init());
    options->setLanguageVersion(MTL::LanguageVersion3_1);
    // Infinities and NaN keep their meaning: attention begins with one.
    if (is_macos_15())
      options->setMathMode(MTL::MathModeRelaxed);
    else
      options->setFastMathEnabled(false);
    NS::Error* error = nullptr;
    auto library = NS::TransferPtr(device_->newLibrary(string_of(shader.text).get(), options.get(), &error));
    if (!library) throw_run_error("Metal: {}: {}", shader.file, text_of(error));
    return library;
  }

  NS::SharedPtr<MTL::Device> device_;
  NS::SharedPtr<MTL::CommandQueue> queue_;
  std::shared_ptr<Residency> residency_;
  std::vector<NS::SharedPtr<MTL::Library>> libraries_;
  // Of the command buffer that is being encoded; the pool owns them.
  NS::SharedPtr<NS::AutoreleasePool> pool_;
  MTL::CommandBuffer* commands_ = nullptr;
  MTL::ComputeCommandEncoder* encoder_ = nullptr;
};

}  // namespace

std::unique_ptr<MetalDevice> make_apple_device() {
  auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
  if (!device) throw_input_error("backend metal: this machine has no GPU that Metal knows; --backend cpu runs without");
  return std::make_unique<AppleDevice>(std::move(device));
}

}  // namespace nibble
