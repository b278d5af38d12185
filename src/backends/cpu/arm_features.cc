#include "backends/cpu/arm_features.h"

#if defined(__linux__)
#include <sys/auxv.h>

#include <asm/hwcap.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace nibble {

#if defined(__linux__)
ArmFeatures arm_features() {
  return {.dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, .i8mm = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0};
}
#elif defined(__APPLE__)
namespace {

bool has(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

}  // namespace

ArmFeatures arm_features() {
  return {.dotprod = has("hw.optional.arm.FEAT_DotProd"), .i8mm = has("hw.optional.arm.FEAT_I8MM")};
}
#else
ArmFeatures arm_features() { return {}; }
#endif

}  // namespace nibble
