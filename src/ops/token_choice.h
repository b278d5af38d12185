// How the next token is taken from logits, as far as a device may do it: engine/sampler.h says what is meant.
#pragma once

#include <cstdint>

namespace nibble {

struct TokenChoice {
  float temperature = 0.0f;  // 0: the best token
  int64_t top_k = 0;         // 0: all
  float top_p = 1.0f, min_p = 0.0f;
};

}  // namespace nibble
