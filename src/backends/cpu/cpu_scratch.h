// What a step on the CPU keeps besides its weights and the cache: worked out from the step and the shapes of its weights,
// before any is read.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "backends/cpu/cpu_attention.h"
#include "backends/cpu/cpu_moe.h"
#include "backends/cpu/fuse.h"

namespace nibble {

// Groups of one kind take turns with the same memory.
struct CpuScratchPlan {
  int64_t common_activations = 0;  // bytes of the largest group whose activations the workers prepare together
  int64_t own_activations = 0;     // the same, of those that each prepares for itself
  std::vector<AttentionShape> attentions;
  std::vector<MoeShape> experts;
};
CpuScratchPlan plan_cpu_scratch(const Step& step, std::span<const SideBySide> groups,
                                const std::function<WeightShape(WeightId)>& shape_of, int64_t max_len);

// Rows of activations for a group: those that a norm gives, then the same rounded.
int64_t normed_bytes(const LinearGroup& group, int64_t M);
int64_t group_activations_bytes(const LinearGroup& group, int64_t M);

// CompiledStep::scratch_bytes of the step, but for what a step of tiles has besides.
int64_t cpu_scratch_bytes(const Step& step, std::span<const WeightShape> weights, int64_t max_len, int num_workers);

}  // namespace nibble
