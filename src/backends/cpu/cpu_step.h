// A step compiled for the CPU: phases that all workers run together, a barrier after each.
//
// A worker owns some rows of every matrix, always the same. What is small is done by every worker for itself rather
// than shared behind a barrier: norms and the rounding of activations, for up to kRedundantTokens tokens, and the choice of
// experts for one.
#pragma once

#include <memory>

#include "backends/cpu/kernels.h"
#include "base/worker_pool.h"
#include "ops/backend.h"

namespace nibble {

// A norm and the rounding of 8 rows of 2,048 take about as long as two barriers.
inline constexpr int64_t kRedundantTokens = 8;

std::unique_ptr<CompiledStep> compile_cpu_step(const Step& step, std::span<const PackedWeight* const> weights,
                                               const KvCacheShape& cache_shape, WorkerPool& pool, int activation_bits);

}  // namespace nibble
