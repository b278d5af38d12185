// The executor as a Metal device: the shaders as clang compiled them, each GPU thread a fiber (docs/metal.md). It is there
// to show that the shaders are right, on any machine; it is far slower than the CPU backend.
#pragma once

#include "backends/metal/metal_device.h"
#include "simt/executor.h"

namespace nibble {

struct ExecutorOptions {
  int num_threads = 1;  // OS threads
  simt::LaneOrder order = simt::LaneOrder::ascending;
};
std::unique_ptr<MetalDevice> make_executor_device(const ExecutorOptions& options);

}  // namespace nibble
