// What a matrix of weights means, apart from the file it came from and the kernel that will read it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/formats.h"

namespace nibble {

// A run of rows with a tensor scale of its own for each expert: merging those of tensors that a file has fused (gate with
// up) would change values.
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
  std::vector<Part> parts;              // by first_row, the first at 0; one part if all rows have one tensor scale
  std::shared_ptr<const void> storage;  // keeps codes and scales alive
  // Where a file has each expert by itself: E weights of one expert, whose codes and scales are those of this one, which
  // has none then. CanonicalRows finds them either way.
  std::vector<CanonicalWeight> experts;
  // The tensor's name, if the codes are floats that nobody has looked through for NaN and infinity: check_floats does, or,
  // while they are in the cache for something else, CanonicalRows::checked_row.
  std::string unchecked_floats;
};

// The row's codes and scales, and its tensor scale.
struct CanonicalRow {
  const uint8_t* codes;
  const uint8_t* scales;
  float tensor_scale;
};

// Finds the rows of a weight, which must outlive it. What all rows have in common is worked out once.
class CanonicalRows {
 public:
  explicit CanonicalRows(const CanonicalWeight& weight);
  CanonicalRow row(int64_t e, int64_t n) const;
  // The same. Throws what check_floats throws if the row has a float that nobody has checked and that is not finite.
  CanonicalRow checked_row(int64_t e, int64_t n) const;

 private:
  const CanonicalWeight& holder(int64_t e) const {
    return weight_.experts.empty() ? weight_ : weight_.experts[static_cast<size_t>(e)];
  }

  const CanonicalWeight& weight_;
  int64_t row_codes_, row_scales_, expert_scales_;  // bytes
  int64_t group_rows_;                              // that share their scales
};

// out[k] = weight[e, n, k], for all k.
void decode_row(const CanonicalWeight& weight, int64_t e, int64_t n, float* out);

// Throws InputError, with `name`, the place and the byte, if the sizes do not fit the shape or a scale is not valid; or
// with `codes_name` (if empty: `name`), if a code is not. Floats are left to check_floats.
void check_weight(const CanonicalWeight& weight, std::string_view name, std::string_view codes_name = {});

// Of a float that is NaN or infinite: names the tensor, the element and its value.
class NotFinite : public InputError {
 public:
  using InputError::InputError;
};

// Throws NotFinite if floats that nobody has checked are not finite. They count as checked then.
void check_floats(CanonicalWeight& weight);

}  // namespace nibble
