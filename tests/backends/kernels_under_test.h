// The kernel tables that tests run: all of this machine, and on one with AVX-512 those for AMX over tiles in plain C++,
// and AVX-512's own as they are on other processors.
#pragma once

#include <vector>

#include "backends/cpu/kernels.h"

namespace nibble {

const std::vector<const CpuKernels*>& kernels_under_test();

// The table of that name; null if this machine does not have it.
const CpuKernels* find_kernels(std::string_view name);

}  // namespace nibble
