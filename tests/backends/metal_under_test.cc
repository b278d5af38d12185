#include "backends/metal/metal_backend.h"
#include "backends/metal_devices.h"
#include "backends/step_comparison.h"

namespace nibble {

std::vector<std::unique_ptr<Backend>> backends_under_test() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (auto& device : devices_under_test()) backends.push_back(make_metal_backend(std::move(device), 1));
  return backends;
}

float attention_tolerance(KvCacheType) { return 2e-5f; }

}  // namespace nibble
