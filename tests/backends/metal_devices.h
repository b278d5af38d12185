// The devices that tests of Metal run on: the GPU where there is one; else the executor's lanes in three orders, of which
// a right kernel does not know.
#pragma once

#include <memory>
#include <vector>

#ifdef __APPLE__
#include "backends/metal/apple_device.h"
#else
#include "backends/metal/executor_device.h"
#endif

namespace nibble {

inline std::vector<std::unique_ptr<MetalDevice>> devices_under_test() {
  std::vector<std::unique_ptr<MetalDevice>> devices;
#ifdef __APPLE__
  devices.push_back(make_apple_device());
#else
  for (simt::LaneOrder order : simt::kLaneOrders)
    devices.push_back(
        make_executor_device({.num_threads = order == simt::LaneOrder::ascending ? 2 : 1, .order = order}));
#endif
  return devices;
}

}  // namespace nibble
