// dispatch_gemm_fp4 on a Metal device: C = A * B with FP4 weights, for any number of tokens, on the public layout that
// include/nibble/dispatch_gemm_fp4.h describes. No step needs it: the engine's linears have a layout of their own.
#pragma once

#include <cstdint>

#include "backends/metal/gemm_fp4_plan.h"
#include "backends/metal/metal_device.h"
#include "backends/metal/metal_kernels.h"

namespace nibble {

struct MetalGemmFp4 {
  int64_t M = 0;           // tokens, any number from 0 on
  int64_t N = 0;           // out features, any number from 0 on
  int64_t K = 0;           // in features, a multiple of 8
  int64_t group_size = 0;  // k that share a scale: 32, 64 or 128; the last group may be short
  bool is_float = false;   // C is float32, not half

  // No buffer is needed where there are no elements.
  MetalBinding A;       // half [M, K], at a multiple of 8 bytes
  MetalBinding B;       // uint32 [K/8, N], at a multiple of 16 bytes
  MetalBinding scales;  // half [ceil(K / group_size), N], at a multiple of 8 bytes
  MetalBinding C;       // half or float32 [M, N], at a multiple of its elements' bytes
};

// C[m, n] = sum over k of A[m, k] * e2m1(B[k, n]) * scales[k / group_size, n], sums in float32; a command buffer of its
// own, on the route of choose_gemm_fp4 or on the given one (`nothing` is none). Writes all of C and nothing else;
// results are the same each time. Throws InputError, before anything runs, for a size or a buffer that does not fit,
// with its name and both values.
void gemm_fp4(MetalDevice& device, MetalKernels& kernels, const MetalGemmFp4& gemm);
void gemm_fp4_on_route(MetalDevice& device, MetalKernels& kernels, const MetalGemmFp4& gemm, GemmRoute route);

// The same with the dispatches given, which have to be those of a plan for this shape.
void run_gemm_fp4_plan(MetalDevice& device, MetalKernels& kernels, const MetalGemmFp4& gemm, const MetalGemmPlan& plan);

}  // namespace nibble
