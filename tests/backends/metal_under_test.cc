#include "backends/metal/executor_device.h"
#include "backends/metal/metal_backend.h"
#include "backends/step_comparison.h"

namespace nibble {

// The executor's lanes in three orders, of which a right kernel does not know.
std::vector<std::unique_ptr<Backend>> backends_under_test() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (simt::LaneOrder order : simt::kLaneOrders)
    backends.push_back(make_metal_backend(make_executor_device({.num_threads = 2, .order = order}), 1));
  return backends;
}

}  // namespace nibble
