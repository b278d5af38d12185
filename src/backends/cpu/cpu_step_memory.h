// What the ops of a compiled step work on: its weights, its buffers, and the inputs and cache of the present run.
#pragma once

#include <span>
#include <vector>

#include "backends/cpu/cpu_kv_cache.h"
#include "backends/cpu/float_rows.h"
#include "backends/cpu/packed_matrix.h"
#include "base/memory.h"
#include "ops/backend.h"

namespace nibble {

class CpuStepMemory {
 public:
  // Keeps `step`; the weights, by WeightId, outlive it, too.
  CpuStepMemory(const Step& step, std::span<const PackedWeight* const> weights);

  // What comes before a run: works out the angles of its positions.
  void begin(const StepInputs& run_inputs, CpuKvCache& run_cache);

  const Step& step;
  StepInputs inputs;            // of the present run
  CpuKvCache* cache = nullptr;  // the same

  // The slice's rows.
  FloatRows matrix(const Slice& slice) const;
  const PackedMatrix& packed(WeightId id) const;
  // Null if there is none.
  const float* vector(WeightId id) const;
  // The cosines of token m's angles, [half]; their sines are step.M * half further on.
  const float* turns(int rotation, int64_t m) const;

  size_t bytes() const;  // of the buffers

 private:
  std::vector<const PackedWeight*> weights_;
  std::vector<Buffer> buffers_;  // by StepBuffer
  std::vector<Buffer> turns_;    // by Rotation
};

// What bytes() will be.
int64_t step_memory_bytes(const Step& step);

}  // namespace nibble
