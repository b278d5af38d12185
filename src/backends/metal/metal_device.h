// What the Metal backend asks of a GPU: memory that both sides see, kernels by name, and one command buffer at a time.
// Two implementations: Apple's Metal (apple_device.cc), and the executor, which runs the same kernels on the CPU
// (executor_device.cc).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "backends/metal/arguments.h"

namespace nibble {

// Threadgroups that keep the largest of Apple's GPUs (80 cores) busy: with fewer, they share positions, or k.
inline constexpr int64_t kBusyThreadgroups = 256;

// Memory of the device, zeroed at first, on at least 64-byte lines. The host writes it before a command buffer begins and
// reads it after finish.
class MetalBuffer {
 public:
  virtual ~MetalBuffer() = default;
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 protected:
  MetalBuffer() = default;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

class MetalKernel {
 public:
  virtual ~MetalKernel() = default;
};

// The function constants that are true; the others are false.
using FunctionConstants = std::array<bool, kNumFunctionConstants>;

struct MetalSize {
  uint32_t x = 1, y = 1, z = 1;
};

// A buffer from some byte on: a parameter of a kernel.
struct MetalBinding {
  const MetalBuffer* buffer = nullptr;
  size_t first_byte = 0;
};

// One kernel over a grid. Parameter 0 is the arguments, the next ones are the buffers, in their order; without arguments
// the buffers are all parameters.
struct MetalDispatch {
  const MetalKernel* kernel = nullptr;
  std::span<const uint8_t> arguments;
  std::span<const MetalBinding> buffers;
  MetalSize threadgroups;  // of the grid
  uint32_t threads = 0;    // of a threadgroup, beside each other in x
};

class MetalDevice {
 public:
  virtual ~MetalDevice() = default;

  virtual std::string description() const = 0;  // "Apple M4 Max"

  // Throws RunError if there is no such memory.
  virtual std::unique_ptr<MetalBuffer> make_buffer(size_t bytes) = 0;
  virtual std::unique_ptr<MetalKernel> make_kernel(std::string_view name, const FunctionConstants& constants) = 0;

  // A command buffer: begin, dispatches, finish. Dispatches may run side by side; what comes after a barrier sees what was
  // written before it. finish runs them and waits; throws RunError if the GPU reports an error, InputError for what the
  // executor finds wrong with a kernel.
  virtual void begin() = 0;
  virtual void dispatch(const MetalDispatch& dispatch) = 0;
  virtual void barrier() = 0;
  virtual void finish() = 0;
};

}  // namespace nibble
