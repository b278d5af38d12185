// Weights in formats without a kernel become, while they are packed, Q4_1, Q8_0, BF16 or F16.
//
// 4-bit affine weights are Q4_1 with other scales: their codes stay, and a scale or bias of a file, bfloat16 or half, is a
// half exactly. Other sources of up to 6 bits become Q8_0: its step, 1/127 of the group's largest weight, is a quarter of
// what the finest of them (Q6_K) has, and a matrix of 8 bits is half as long to read as one of 16. An 8-bit source's own
// steps are as large as Q8_0's, so that a second rounding would double its error: it becomes F16.
//
// Formats whose weights are int8 times a half (Q5_0, IQ4_NL) are exact in Q8_0: it takes their integers and scales.
//
// Transposed FP4 becomes BF16, on backends without a kernel for it: an E2M1 code has 2 significant bits, an E4M3 scale 4 and
// an E8M0 scale 1, so their products fit BF16's 8.
//
// A tensor scale stays apart, as the row's factor: multiplied in before the rounding it could only add one, and the codes
// of E4M3 are exact in F16 without it. The factor also takes a power of two out of a row that is rounded, so that its
// halves are large: as they are, those below 2^-14 would be subnormal and lose up to all their bits.
#pragma once

#include <vector>

#include "weights/weight.h"

namespace nibble {

// The formats that have kernels on every backend; a weight in another becomes one of these while it is packed, unless the
// backend has a kernel of its own for it.
using KernelFormats =
    FormatList<F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Mxfp4, Nvfp4, Fp4Half<32>, Fp4Half<64>, Fp4Half<128>>;

// The format in which a weight of `format` is packed: itself if it has a kernel.
FormatId kernel_format(FormatId format);

// Converts rows of K weights from one format to kernel_format of it, one row after the other.
class RowConverter {
 public:
  RowConverter(FormatId from, int64_t K);

  // weight[k] of the row = result's decode(k) * result's tensor_scale, exactly (BF16), within 1/250 of the largest of its group of 32
  // (Q8_0; groups below 2^-29 of the row's largest weight: within 2^-39 of that), 1/2048 of itself (F16; below 2^-28 of
  // the row's largest: 2^-39 of that), or 1/2048 of the group's bias and 15 scales (Q4_1). The result lies at codes and
  // scales, which have the bytes of a row of the new format. Throws InputError if a weight is not finite.
  CanonicalRow convert(const CanonicalRow& row, uint8_t* codes, uint8_t* scales);

 private:
  FormatId from_, to_;
  std::vector<float> values_;
};

}  // namespace nibble
