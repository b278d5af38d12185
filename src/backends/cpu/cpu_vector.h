// A vector of weights (a norm, a bias) on the CPU: float32 values on a line's start.
#pragma once

#include <cstring>
#include <span>

#include "base/memory.h"
#include "ops/packed_weight.h"

namespace nibble {

class CpuVector final : public PackedWeight {
 public:
  explicit CpuVector(std::span<const float> from) : values(from.size_bytes()) {
    format = FormatId::f32;
    E = N = 1;
    K = static_cast<int64_t>(from.size());
    bytes = static_cast<int64_t>(from.size_bytes());
    if (!from.empty()) std::memcpy(values.data(), from.data(), from.size_bytes());
  }

  std::span<const uint8_t> packed_bytes() const override { return values.bytes(); }

  const Buffer values;
};

}  // namespace nibble
