#include "backends/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "backends/cpu/arm_features.h"
#include "base/error.h"

namespace nibble {

extern const CpuKernels kGenericKernels;
#if defined(__x86_64__)
extern const CpuKernels kAvx2Kernels, kAvxVnniKernels, kAvx512VnniKernels, kAvx512Kernels, kAmxKernels, kAmxBf16Kernels;
#elif defined(__aarch64__)
extern const CpuKernels kNeonDotprodKernels, kNeonI8mmKernels;
#endif

#if defined(__x86_64__)
namespace {

bool is_zen3_or_4() {
  __builtin_cpu_init();  // this may run before the C library has done it
  return __builtin_cpu_is("amdfam19h") != 0;
}

}  // namespace

const FarPrefetches kFarPrefetches = [] {
  // On Zen 5, near ones alone gave 97 % of the roof with MXFP4.
  if (is_zen3_or_4()) return FarPrefetches::if_computing;
  return __builtin_cpu_is("intel") != 0 ? FarPrefetches::always : FarPrefetches::never;
}();
const bool kDoublePumps512 = is_zen3_or_4();  // Zen 3 has no such vectors
#else
const FarPrefetches kFarPrefetches = FarPrefetches::never;
const bool kDoublePumps512 = false;
#endif

namespace {

#if defined(__x86_64__)
[[maybe_unused]] bool has_avx_vnni() {  // not among the names of __builtin_cpu_supports in GCC 12
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
}

// Tiles are state that a process has to ask Linux for, once for all its threads (arch_prctl(2)).
[[maybe_unused]] bool may_use_amx() {
#if defined(__linux__)
  constexpr unsigned kAmx = 1u << 24 | 1u << 25 | 1u << 22;  // tiles; int8 and bfloat16 in them
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmx) == kAmx &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// No vector: dispatch_gemm_fp4, which asks for these, allocates nothing.
struct Supported {
  std::array<const CpuKernels*, 7> kernels;
  size_t count = 0;

  void push_back(const CpuKernels* k) { kernels[count++] = k; }
};

Supported find_supported() {
  Supported found{};
#if defined(__x86_64__)
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512_vnni = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  const bool has_avx512_vbmi = has_avx512_vnni && __builtin_cpu_supports("avx512vbmi");
  // What is not built must not be named in code that runs.
  if constexpr (NIBBLE_AMX_KERNELS)
    if (has_avx512_vbmi && may_use_amx())
      for (const CpuKernels* kernels : {&kAmxKernels, &kAmxBf16Kernels}) found.push_back(kernels);
  if constexpr (NIBBLE_AVX512_KERNELS)
    if (has_avx512_vbmi) found.push_back(&kAvx512Kernels);
  if constexpr (NIBBLE_AVX512_VNNI_KERNELS)
    if (has_avx512_vnni) found.push_back(&kAvx512VnniKernels);
  if constexpr (NIBBLE_AVX_VNNI_KERNELS)
    if (has_avx2 && has_avx_vnni()) found.push_back(&kAvxVnniKernels);
  if constexpr (NIBBLE_AVX2_KERNELS)
    if (has_avx2) found.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
  const ArmFeatures arm = arm_features();
  if (arm.dotprod && arm.i8mm) found.push_back(&kNeonI8mmKernels);
  if (arm.dotprod) found.push_back(&kNeonDotprodKernels);
#endif
  found.push_back(&kGenericKernels);
  return found;
}

const CpuKernels& choose() {
  const char* name = std::getenv("NIBBLE_CPU_KERNELS");
  const auto supported = supported_cpu_kernels();
  if (name == nullptr || *name == '\0') return *supported.front();
  const auto named = std::ranges::find(supported, std::string_view(name), &CpuKernels::name);
  if (named != supported.end()) return **named;
  std::string names;
  for (const CpuKernels* kernels : supported) {
    names += names.empty() ? "" : ", ";
    names += kernels->name;
  }
  throw_input_error("NIBBLE_CPU_KERNELS is '{}', but on this machine this build runs: {}", name, names);
}

}  // namespace

std::span<const CpuKernels* const> supported_cpu_kernels() {
  static const Supported supported = find_supported();
  return {supported.kernels.data(), supported.count};
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace nibble
