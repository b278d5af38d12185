// The columns of a slice, for all rows of its buffer.
#pragma once

#include <cstdint>

namespace nibble {

struct FloatRows {
  float* data;
  int64_t rows, width, stride;
  float* row(int64_t m) const { return data + m * stride; }
};

}  // namespace nibble
