// How far ahead of themselves the kernels ask for the lines of a matrix. Included after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/kernels.h"

namespace nibble {
namespace {

// Bytes from here to the lines that are asked for now: a near one into the first-level cache, a far one into the
// second. Share of the roof with MXFP4 on one Emerald Rapids core: none 62 %, near alone 83 %, near and far 90 %,
// scales too 96 %. On one Zen 5 core: near at 512 79 %, none 86 %, near at 4096 93 %.
constexpr int64_t kNear = 4096, kFar = 16384, kScalesNear = 512;

void prefetch_codes(const uint8_t* line) {
  __builtin_prefetch(line + kNear, 0, 3);
  if (kPrefetchesFar) __builtin_prefetch(line + kFar, 0, 2);
}

}  // namespace
}  // namespace nibble
