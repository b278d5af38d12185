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

// Of each lane: nibbles k = 0 … 7 from the low end become 0, 4, 1, 5, 2, 6, 3, 7.
[[gnu::always_inline]] inline void interleave_nibbles_of(PackLanes& lanes) {
  PackLanes low = lanes & 0xFFFFu, high = lanes >> 16;
  low = (low | (low << 8)) & 0x00FF00FFu;
  high = (high | (high << 8)) & 0x00FF00FFu;
  low = (low | (low << 4)) & 0x0F0F0F0Fu;
  high = (high | (high << 4)) & 0x0F0F0F0Fu;
  lanes = low | (high << 4);
}

// Lines of 16 bytes of 16 rows: lane r of line i is the i-th 4 bytes of row r, in a packed matrix's form.
template <RowUnit unit>
void interleave_rows_of(const uint8_t* const* rows, int64_t num_pieces, uint8_t* lines) {
  const int64_t next_rows = kBlockRows * (rows[1] - rows[0]);
  for (int64_t at = 0; at < 16 * num_pieces; at += 16, lines += 4 * kLineBytes) {
    // A line of each row in four pieces. Sixteen short streams are more than the processor's own prefetching follows.
    for (int r = 0; r < 4; r++)
      __builtin_prefetch(rows[at / 16 % 4 * 4 + r] + at / kLineBytes * kLineBytes + next_rows, 0, 2);
    PackLanes of[4];  // four rows each
    for (int r = 0; r < kBlockRows; r++)
      __builtin_memcpy(reinterpret_cast<uint8_t*>(&of[r / 4]) + r % 4 * 16, rows[r] + at, 16);
    for (PackLanes& lanes : of) {
      if constexpr (unit == RowUnit::nibbles) interleave_nibbles_of(lanes);
      if constexpr (unit == RowUnit::signed_bytes) lanes ^= 0x80808080u;
    }
    PackLanes half[4];  // lines 0 and 1 of rows 0 … 7, then of rows 8 … 15; lines 2 and 3 of the same
    for (int i = 0; i < 2; i++) {
      half[i] =
          __builtin_shufflevector(of[2 * i], of[2 * i + 1], 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
      half[2 + i] =
          __builtin_shufflevector(of[2 * i], of[2 * i + 1], 2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
    }
    for (int i = 0; i < 4; i++) {
      const PackLanes &a = half[i / 2 * 2], &b = half[i / 2 * 2 + 1];
      PackLanes line =
          i % 2 == 0 ? __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
                     : __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
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
