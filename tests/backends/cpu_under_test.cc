#include "backends/cpu/cpu_backend.h"
#include "backends/step_comparison.h"

namespace nibble {

// On 1, 2 and 3 threads.
std::vector<std::unique_ptr<Backend>> backends_under_test() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (int num_threads : {1, 2, 3}) backends.push_back(make_cpu_backend(num_threads));
  return backends;
}

}  // namespace nibble
