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

// With AVX-512, over a cache of q8_0, queries and weights have 16 bits (attend_int8.h), and the random inputs of these tests
// give logits in the thousands, of which a softmax makes more.
float attention_tolerance(KvCacheType type) {
  const std::string_view kernels = float_kernels().name;
  return type == KvCacheType::q8_0 && (kernels == "avx512" || kernels == "amx") ? 1e-3f : 2e-5f;
}

}  // namespace nibble
