// From float32 to the formats that are written: what `nibble quantize` writes, what backends convert weights to, and
// what tests feed to kernels.
#pragma once

#include <cstdint>
#include <span>

#include "formats/formats.h"

namespace nibble {

enum class ScaleSearch : uint8_t {
  plain,  // the scale that the producers' own tools choose (OCP and ggml for MXFP4, ModelOpt for NVFP4)
  best,   // never worse than plain. FP4: the scale of least squared error among all that could be it; Q8_0: the nearest
          // codes for the scale as it is stored; others: plain
};

// 0 if there are none; NaN if one of them is.
float largest_magnitude(std::span<const float> values);

// The multiplier for a tensor whose largest magnitude is `largest`: NVFP4 largest / (6 * 448), so that the largest
// block scale is 448; 1 for formats without one, and for a tensor of zeros.
float tensor_scale_for(FormatId format, float largest);

// Encodes one row: `codes` has code_bytes(K), `scales` scale_bytes(K) bytes, all overwritten. Rounds to nearest, ties
// to even (Q8_0, Q4_0 and Q4_1: as ggml does). A group of zeros gets a scale that decodes to zeros. Throws InputError
// if a value is not finite, or is beyond what the format reaches with this tensor scale, or if the format is only
// read.
void encode_row(FormatId format, std::span<const float> row, float tensor_scale, ScaleSearch search, uint8_t* codes,
                uint8_t* scales);

// Encodes one group of Q8_0, at most 32 values, as encode_row does with ScaleSearch::best, but without errors: a group
// with a value that is not finite, or that asks for a scale beyond 65504, decodes to NaN. `codes` has group.size() bytes.
void encode_q8_0_group(std::span<const float> group, uint8_t* codes, uint8_t* scale);

}  // namespace nibble
