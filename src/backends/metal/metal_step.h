// A step on Metal: a list of dispatches (metal_fuse.h) with their arguments and buffers, made once and encoded for each run.
#pragma once

#include <memory>
#include <span>

#include "backends/metal/metal_device.h"
#include "backends/metal/metal_kernels.h"
#include "ops/backend.h"

namespace nibble {

// `weights` are MetalMatrix and MetalVector. Throws InputError if the step needs what the kernels do not have.
std::unique_ptr<CompiledStep> compile_metal_step(const Step& step, std::span<const PackedWeight* const> weights,
                                                 const KvCacheShape& cache_shape, MetalDevice& device,
                                                 MetalKernels& kernels);

// The phases that it would have, and its scratch_bytes. Throws what compile_metal_step would.
struct MetalStepPlan {
  std::vector<PlannedPhase> phases;
  int64_t scratch_bytes;
};
MetalStepPlan plan_metal_step(const Step& step, std::span<const WeightShape> weights, const KvCacheShape& cache_shape);

}  // namespace nibble
