// Interleaves 16 rows, as packed_layout.h has them, 16 bytes of each at a time. Word by word, in plain code, this is half of
// the processor time that loading a model takes.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include <cstdint>

#include "backends/cpu/packed_layout.h"

namespace nibble {
namespace {

typedef uint32_t PackLanes __attribute__((vector_size(64)));
typedef uint16_t PackHalves __attribute__((vector_size(64)));
typedef uint8_t PackBytes __attribute__((vector_size(64)));

// Of each lane: nibbles k = 0 … 7 from the low end become 0, 4, 1, 5, 2, 6, 3, 7: the two bytes in the middle change places, then
// in each half the two nibbles in the middle.
[[gnu::always_inline]] inline void interleave_nibbles_of(PackLanes& lanes) {
  PackBytes bytes;
  __builtin_memcpy(&bytes, &lanes, sizeof lanes);
  bytes =
      __builtin_shufflevector(bytes, bytes, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 16, 18, 17, 19, 20,
                              22, 21, 23, 24, 26, 25, 27, 28, 30, 29, 31, 32, 34, 33, 35, 36, 38, 37, 39, 40, 42, 41,
                              43, 44, 46, 45, 47, 48, 50, 49, 51, 52, 54, 53, 55, 56, 58, 57, 59, 60, 62, 61, 63);
  __builtin_memcpy(&lanes, &bytes, sizeof lanes);
  const PackLanes differ = (lanes ^ (lanes >> 4)) & 0x00F000F0u;
  lanes ^= differ ^ (differ << 4);
}

// Lines of 16 bytes of 16 rows: lane r of line i is the i-th 4 bytes of row r, in a packed matrix's form.
template <RowUnit unit>
void interleave_rows_of(const uint8_t* const* rows, int64_t num_pieces, uint8_t* lines) {
  const int64_t next_rows = kBlockRows * (rows[1] - rows[0]);
  for (int64_t at = 0; at < 16 * num_pieces; at += 16, lines += 4 * kLineBytes) {
    // A line of each row in four pieces. Sixteen short streams are more than the processor's own prefetching follows.
    for (int r = 0; r < 4; r++)
      __builtin_prefetch(rows[at / 16 % 4 * 4 + r] + at / kLineBytes * kLineBytes + next_rows, 0, 2);
    PackLanes of[4];  // rows i, 4 + i, 8 + i, 12 + i
    for (int r = 0; r < kBlockRows; r++)
      __builtin_memcpy(reinterpret_cast<uint8_t*>(&of[r % 4]) + r / 4 * 16, rows[r] + at, 16);
    for (PackLanes& lanes : of) {
      if constexpr (unit == RowUnit::nibbles) interleave_nibbles_of(lanes);
      if constexpr (unit == RowUnit::signed_bytes) lanes ^= 0x80808080u;
    }
    // A quarter of `of` is turned like a matrix of 4 × 4 lanes: no lane leaves its quarter, so that each shuffle is one
    // instruction for vectors of 16 and 32 bytes, too. First pairs of neighbouring rows, by lanes 0 and 1, and 2 and 3.
    PackLanes pairs[4];
    for (int i = 0; i < 4; i += 2) {
      pairs[i] = __builtin_shufflevector(of[i], of[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
      pairs[i + 1] =
          __builtin_shufflevector(of[i], of[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    for (int i = 0; i < 4; i++) {
      const PackLanes &a = pairs[i / 2], &b = pairs[2 + i / 2];
      PackLanes line = i % 2 == 0
                           ? __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
                           : __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
      if constexpr (unit == RowUnit::bytes) {
        PackBytes bytes;
        __builtin_memcpy(&bytes, &line, sizeof line);
        bytes = __builtin_shufflevector(bytes, bytes, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 1, 5,
                                        9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 2, 6, 10, 14, 18, 22, 26,
                                        30, 34, 38, 42, 46, 50, 54, 58, 62, 3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43,
                                        47, 51, 55, 59, 63);
        __builtin_memcpy(&line, &bytes, sizeof line);
      }
      if constexpr (unit == RowUnit::halves) {  // all rows of an even k, then of the odd one
        PackHalves halves;
        __builtin_memcpy(&halves, &line, sizeof line);
        halves = __builtin_shufflevector(halves, halves, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 1,
                                         3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        __builtin_memcpy(&line, &halves, sizeof line);
      }
      __builtin_memcpy(lines + i * kLineBytes, &line, sizeof line);
    }
  }
}

[[maybe_unused]] void interleave_rows(const uint8_t* const* rows, int64_t num_pieces, RowUnit unit, uint8_t* lines) {
  switch (unit) {
    case RowUnit::nibbles: return interleave_rows_of<RowUnit::nibbles>(rows, num_pieces, lines);
    case RowUnit::signed_bytes: return interleave_rows_of<RowUnit::signed_bytes>(rows, num_pieces, lines);
    case RowUnit::bytes: return interleave_rows_of<RowUnit::bytes>(rows, num_pieces, lines);
    case RowUnit::halves: return interleave_rows_of<RowUnit::halves>(rows, num_pieces, lines);
    case RowUnit::floats: return interleave_rows_of<RowUnit::floats>(rows, num_pieces, lines);
  }
}

}  // namespace
}  // namespace nibble
