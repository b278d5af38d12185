// M rows of float32 activations, prepared once for all the matrices that multiply them.
//
// Each group of 32 is rounded, by default to 15 bits with a scale of its own, in two int8 planes: q = 128 high + low. That costs an
// integer kernel a second multiplication but no second decoding, and is as good as float32: in a small model it moves
// logits by a KL of 2.5e-7, where float16 activations move them by 1.3e-6 and 8 bits by 3.1e-3.
//
// Rounded to 8 bits, the high plane is all there is: kernels leave out the second multiplication.
//
// Matrices of floats and transposed FP4 take the float32 activations.
//
// A group with an infinity or NaN gets a NaN scale, so that every sum over it is NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/packed_layout.h"

namespace nibble {

inline constexpr int kTokenTile = 64;               // tokens whose groups lie together
inline constexpr float kLargestActivation = 16256;  // 127 * 128: the largest q
inline constexpr int kActivationBits = 15;          // the default; 8 is the other choice
inline constexpr uint32_t kInfinityBits = 0x7F800000;
// The largest magnitude of a group counts as at least this, which keeps its inverse finite: smaller activations are rounded to 0.
inline constexpr float kSmallestLargest = 0x1p-100f;

struct ActivationGroup {
  int8_t high[kGroup];     // -127 … 127
  int8_t low[kGroup];      // -64 … 63; zeros if there are 8 bits
  float scale;             // x = q * scale, within scale / 2
  int32_t offset;          // -kOffset times the sum of q
  int32_t half_offset[2];  // the same for either half of the group
  // The rest is there for kernels that multiply pairs. For those that sum in 16 bits, of each plane, for the group and for its
  // halves, what the pairs k = 0, 1 of all fours, and k = 2, 3, must add.
  int16_t high_offsets[3][2], low_offsets[3][2];
  // Bytes from here to q in words, [kGroup]: of each four the even k, then the odd ones. 0: all are zeros, as the planes are.
  int32_t to_words;

  const uint8_t* words() const { return reinterpret_cast<const uint8_t*>(this) + to_words; }
};
static_assert(offsetof(ActivationGroup, high) == 0 && offsetof(ActivationGroup, low) == kGroup);

// The groups of a tile of 64 tokens (fewer in the last tile) lie by group, then by token, so that a kernel finds all its
// tokens behind one pointer.
struct Activations {
  int64_t M, K;
  const float* x;  // [M, K], row m at x + m * x_stride
  int64_t x_stride;
  int bits = kActivationBits;
  // activations_bytes(M, K) bytes, filled by CpuKernels::prepare; the rest comes after all groups. Null if no matrix takes them.
  ActivationGroup* groups;
};

constexpr int64_t activation_groups(int64_t K) { return (K + kGroup - 1) / kGroup; }

// What a table may keep of a group after all groups: q in words (AVX2), or two bfloat16 for each activation, at a line's start (AMX).
inline constexpr int64_t kGroupExtraBytes = 2 * kGroup * int64_t{sizeof(uint16_t)};

// Bytes of `groups` for M tokens, with what comes after them; any alignment of 4 will do.
constexpr int64_t activations_bytes(int64_t M, int64_t K) {
  return M * activation_groups(K) * (int64_t{sizeof(ActivationGroup)} + kGroupExtraBytes) + kLineBytes;
}

}  // namespace nibble
