#include "backends/cpu/kernels.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"

namespace nibble {

extern const CpuKernels kGenericKernels;
#if defined(__x86_64__)
extern const CpuKernels kAvx2Kernels, kAvx512Kernels;
#endif

namespace {

std::vector<const CpuKernels*> find_supported() {
  std::vector<const CpuKernels*> found;
#if defined(__x86_64__)
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
                          __builtin_cpu_supports("avx512vbmi");
  if (has_avx512) found.push_back(&kAvx512Kernels);
  if (has_avx2) found.push_back(&kAvx2Kernels);
#endif
  found.push_back(&kGenericKernels);
  return found;
}

const CpuKernels& choose() {
  const char* name = std::getenv("NIBBLE_CPU_KERNELS");
  if (name == nullptr || *name == '\0') return *supported_cpu_kernels().front();
  std::string names;
  for (const CpuKernels* kernels : supported_cpu_kernels()) {
    if (kernels->name == name) return *kernels;
    names += names.empty() ? "" : ", ";
    names += kernels->name;
  }
  throw_input_error("NIBBLE_CPU_KERNELS is '{}', but this machine runs: {}", name, names);
}

}  // namespace

std::span<const CpuKernels* const> supported_cpu_kernels() {
  static const std::vector<const CpuKernels*> supported = find_supported();
  return supported;
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace nibble
