// What the host passes to the kernels of dispatch_gemm_fp4, by value: one text for shader and host.
#pragma once

#ifndef __METAL_VERSION__
#include <cstdint>
namespace nibble::metal_arguments {
using uint = uint32_t;
#endif

struct GemmFp4Arguments {
  uint M, N, K;     // K % 8 == 0
  uint group_size;  // k that share a scale, a multiple of 8; the last group may be short
  uint split_k;     // k of a split, a multiple of group_size (and of 8)
  uint num_splits;  // that there are: ceil(K / split_k)
};

#ifndef __METAL_VERSION__
static_assert(sizeof(GemmFp4Arguments) == 24, "as Metal lays it out");
}  // namespace nibble::metal_arguments
#endif
