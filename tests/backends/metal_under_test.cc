#ifndef __APPLE__
#include "backends/metal/executor_device.h"
#endif
#include "backends/metal/metal_backend.h"
#include "backends/step_comparison.h"

namespace nibble {

// The GPU where there is one; else the executor's lanes in three orders, of which a right kernel does not know.
std::vector<std::unique_ptr<Backend>> backends_under_test() {
  std::vector<std::unique_ptr<Backend>> backends;
#ifdef __APPLE__
  backends.push_back(make_metal_backend(1));
#else
  for (simt::LaneOrder order : simt::kLaneOrders)
    backends.push_back(make_metal_backend(
        make_executor_device({.num_threads = order == simt::LaneOrder::ascending ? 2 : 1, .order = order}), 1));
#endif
  return backends;
}

}  // namespace nibble
