// Weights without a checkpoint: random, but valid and of a sensible size, so that benchmarks of published shapes run as
// the real models do. The same seed and name give the same weights, in whatever order they are asked for.
#pragma once

#include <functional>
#include <memory>

#include "weights/source.h"

namespace nibble {

struct RandomWeights {
  uint64_t seed = 1;
  std::function<FormatId(const MatrixRequest&)> format;               // of each matrix
  std::function<bool(const TensorName& vector)> has_optional_vector;  // biases and the like; none: there are none
};

// Matrices have a mean near 0 and a variance of about 1 / K, so that products keep the size of what goes in. Vectors
// are near 1 if their name ends with "norm.weight", else near 0.
std::unique_ptr<WeightSource> make_random_source(RandomWeights options);

}  // namespace nibble
