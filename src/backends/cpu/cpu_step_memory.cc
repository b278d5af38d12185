#include "backends/cpu/cpu_step_memory.h"

#include "backends/cpu/cpu_vector.h"

namespace nibble {

CpuStepMemory::CpuStepMemory(const Step& s, std::span<const PackedWeight* const> weights)
    : step(s), weights_(weights.begin(), weights.end()) {
  for (const StepBuffer& buffer : step.buffers)
    buffers_.emplace_back(static_cast<size_t>(step.num_rows(buffer.rows) * buffer.width) * sizeof(float));
  for (const Rotation& rotation : step.rotations)
    turns_.emplace_back(2 * static_cast<size_t>(step.M) * rotation.inv_freq.size() * sizeof(float));
}

void CpuStepMemory::begin(const StepInputs& run_inputs, CpuKvCache& run_cache) {
  inputs = run_inputs;
  cache = &run_cache;
  for (size_t r = 0; r < step.rotations.size(); r++) {
    float* cosine = turns_[r].as<float>();
    fill_turns(step.rotations[r], inputs.pos, cosine, cosine + inputs.pos.size() * step.rotations[r].inv_freq.size());
  }
}

FloatRows CpuStepMemory::matrix(const Slice& slice) const {
  const auto b = static_cast<size_t>(slice.buffer);
  const StepBuffer& buffer = step.buffers[b];
  return {buffers_[b].as<float>() + slice.first, step.num_rows(buffer.rows), slice.width, buffer.width};
}

const PackedMatrix& CpuStepMemory::packed(WeightId id) const {
  return static_cast<const PackedMatrix&>(*weights_[static_cast<size_t>(id.index)]);
}

const float* CpuStepMemory::vector(WeightId id) const {
  return id ? static_cast<const CpuVector&>(*weights_[static_cast<size_t>(id.index)]).values.as<float>() : nullptr;
}

const float* CpuStepMemory::turns(int rotation, int64_t m) const {
  const auto r = static_cast<size_t>(rotation);
  return turns_[r].as<float>() + m * static_cast<int64_t>(step.rotations[r].inv_freq.size());
}

size_t CpuStepMemory::bytes() const {
  size_t bytes = 0;
  for (const auto* list : {&buffers_, &turns_})
    for (const Buffer& buffer : *list) bytes += buffer.size();
  return bytes;
}

int64_t step_memory_bytes(const Step& step) {
  int64_t bytes = step.buffer_bytes();
  for (const Rotation& rotation : step.rotations)
    bytes += 2 * step.M * static_cast<int64_t>(rotation.inv_freq.size() * sizeof(float));
  return bytes;
}

}  // namespace nibble
