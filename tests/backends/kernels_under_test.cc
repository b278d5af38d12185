#include "backends/kernels_under_test.h"

#include <algorithm>

namespace nibble {

#ifdef NIBBLE_EMULATED_AMX
extern const CpuKernels kEmulatedAmxKernels, kEmulatedAmxBf16Kernels, kAvx512OfOtherWidth;
#endif

const CpuKernels* find_kernels(std::string_view name) {
  const auto all = supported_cpu_kernels();
  const auto found = std::ranges::find(all, name, &CpuKernels::name);
  return found != all.end() ? *found : nullptr;
}

const std::vector<const CpuKernels*>& kernels_under_test() {
  static const std::vector<const CpuKernels*> kernels = [] {
    const auto all = supported_cpu_kernels();
    std::vector<const CpuKernels*> found(all.begin(), all.end());
#ifdef NIBBLE_EMULATED_AMX
    if (find_kernels("avx512") != nullptr)
      found.insert(found.end(), {&kEmulatedAmxKernels, &kEmulatedAmxBf16Kernels, &kAvx512OfOtherWidth});
#endif
    return found;
  }();
  return kernels;
}

}  // namespace nibble
