// From the dispatches of a fused step to what a device takes: kernels, arguments, buffers, grids, and where barriers stand.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "backends/metal/metal_device.h"
#include "backends/metal/metal_kernels.h"
#include "ops/backend.h"

namespace nibble {

// What a dispatch leaves for the next one and no op knows of; all layers use the same.
enum SharedBuffer : uint8_t {
  kAttentionParts,  // [M, heads, parts, 2 + values]: attention.metal
  kPairs,           // [M * top_k]: expert_pairs.metal
  kPieces,          // of those
  kPairProducts,    // [M * top_k, N]
  kNumSharedBuffers,
};

// The buffers that a compiled step keeps.
struct MetalScratch {
  MetalScratch(const Step& step, MetalDevice& device);

  int64_t num_ahead;             // runs that one command buffer may have: kMostAhead of a step that decodes, else 1
  std::vector<int64_t> strides;  // by StepBuffer, in floats
  std::vector<std::unique_ptr<MetalBuffer>> buffers;   // by StepBuffer
  std::vector<std::unique_ptr<MetalBuffer>> turns;     // by Rotation, [num_ahead]: cosines, then sines, [M, pairs] each
  std::unique_ptr<MetalBuffer> tokens, pos, sequence;  // [M]; pos [num_ahead, M]
  std::unique_ptr<MetalBuffer> nothing;                // for parameters that a kernel does not read
  // By SharedBuffer, as many as sizes were asked for: the last is the largest, and is used from its making on.
  std::array<std::vector<std::unique_ptr<MetalBuffer>>, kNumSharedBuffers> shared;
  std::vector<std::unique_ptr<MetalBuffer>> used;  // experts that dispatches used, [M, top_k]

  int64_t bytes() const;
};

// A buffer of a kernel that is another in each run: a plane of the cache.
struct CachePlane {
  size_t binding, layer;
  bool is_k;
};

struct RecordedDispatch {
  PlannedPhase plan;
  Phase info;
  const MetalKernel* kernel = nullptr;
  std::vector<uint8_t> arguments;
  std::vector<MetalBinding> buffers;
  std::vector<CachePlane> planes;
  MetalSize threadgroups;
  uint32_t threads = 0;
  bool needs_barrier = false;  // before it
};

// What a dispatch read of its experts is known after a run.
struct UsedExperts {
  size_t dispatch;
  int64_t bytes_of_one;
  const MetalBuffer* experts;  // [count] numbers, of which some are the same
  int64_t count;
};

struct RecordedStep {
  std::vector<RecordedDispatch> dispatches;
  std::vector<UsedExperts> used_experts;
};

// `weights` are MetalMatrix and MetalVector; `scratch` and they outlive what is returned. Throws InputError if the step needs
// what the kernels do not have.
RecordedStep record_step(const Step& step, std::span<const PackedWeight* const> weights,
                         const KvCacheShape& cache_shape, MetalDevice& device, MetalKernels& kernels,
                         MetalScratch& scratch);

}  // namespace nibble
