// A weight as one backend's kernels read it. Only that backend knows the bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "formats/format.h"

namespace nibble {

// What a backend will make of a matrix: a pure function of the shape and the format, so that `nibble plan` can print it
// without loading anything.
struct PackPlan {
  FormatId format;     // as packed; another than the checkpoint's if it has no kernel
  std::string layout;  // "16 rows interleaved"
  std::string kernel;  // "avx512_vnni"
  int64_t bytes = 0;   // in the backend's memory
};

class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  FormatId format;
  int64_t E = 0, N = 0, K = 0;
  int64_t bytes = 0;

  // All `bytes` of it, for Backend::adopt to take again; empty if the backend has no packed_layout.
  virtual std::span<const uint8_t> packed_bytes() const { return {}; }
};

}  // namespace nibble
