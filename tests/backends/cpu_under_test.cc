#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/float_kernels.h"
#include "backends/step_comparison.h"

namespace nibble {

// On 1, 2 and 3 threads.
std::vector<std::unique_ptr<Backend>> backends_under_test() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (int num_threads : {1, 2, 3}) backends.push_back(make_cpu_backend(num_threads));
  return backends;
}

// Where integers are multiplied, over a cache of q8_0, queries and weights have 15 or 16 bits (attend_int8.h), and the random
// inputs of these tests give logits in the thousands, of which a softmax makes more.
float attention_tolerance(KvCacheType type) {
  return type == KvCacheType::q8_0 && float_kernels().interleaves_q8_0 ? 1e-3f : 2e-5f;
}

}  // namespace nibble
