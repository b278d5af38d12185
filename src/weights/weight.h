// What a matrix of weights means, apart from the file it came from and the kernel that will read it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "formats/formats.h"

namespace nibble {

// A run of rows that came from one tensor of the checkpoint, with its tensor scale for each expert. When tensors are
// fused (gate with up), each part keeps its own: merging them would change values.
struct Part {
  int64_t first_row;
  std::vector<float> tensor_scale;  // [E] multipliers; all 1 for a format that has none
};

// Codes: row-major [E, N, code_bytes(K)]; scales: row-major [E, N, scale_bytes(K)], or [E, ⌈N / group_rows⌉, scale_bytes(K)]
// where rows share theirs; empty for a format without scales.
// weight[e, n, k] = decode(codes and scales of row e, n; k) * tensor_scale[e] of the part that row n is in.
struct CanonicalWeight {
  FormatId format;
  int64_t E, N, K;  // experts (1 if dense), out features, in features
  std::span<const uint8_t> codes, scales;
  std::vector<Part> parts;              // by first_row, the first at 0; one part if nothing was fused
  std::shared_ptr<const void> storage;  // keeps codes and scales alive
  // Where a file has each expert by itself: E weights of one expert, whose codes and scales are those of this one, which
  // has none then. canonical_row finds them either way.
  std::vector<CanonicalWeight> experts;
};

// The row's codes and scales, and its tensor scale.
struct CanonicalRow {
  const uint8_t* codes;
  const uint8_t* scales;
  float tensor_scale;
};
CanonicalRow canonical_row(const CanonicalWeight& weight, int64_t e, int64_t n);

// out[k] = weight[e, n, k], for all k.
void decode_row(const CanonicalWeight& weight, int64_t e, int64_t n, float* out);

// One weight with the rows of all `weights` below each other; all have the same format, whose rows have scales of their
// own, and the same E and K. Each keeps its parts.
CanonicalWeight concat_rows(std::span<const CanonicalWeight> weights);

// Throws InputError, with `name`, the place and the byte, if the sizes do not fit the shape or a scale is not valid; or
// with `codes_name` (if empty: `name`), if a code is not.
void check_weight(const CanonicalWeight& weight, std::string_view name, std::string_view codes_name = {});

}  // namespace nibble
