// One strip of C = A * B on the public layout of dispatch_gemm_fp4, without repacking: 64 bytes of a row of B are 16
// columns of 8 k, which the packed linears' instructions read as they are.
//
// Cost    B and its scales are read once for all tokens of the strip. With one token it is bound by memory.
// Work    group after group of 32 k (4 rows of B); within it, along the columns, so that each row is read in a long
// run.
//         Sums wait in an array that stays in the first- or second-level cache: [blocks of 16 columns, tokens, 16].
// Edges   the last columns (fewer than 16) and the last rows of B (fewer than 4) are copied to a padded block first.
//
// Included by one file per instruction set, after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

// The rows of B that one group of 32 k takes, and its row of scales, at the strip's first column.
struct GemmRows {
  const uint8_t* lines;
  const uint8_t* scales;
  int64_t line_stride;
  int64_t run_bytes;  // of each row, in the strip
};

// Prefetches what is `ahead` bytes further in the first of the 4 rows, and `apart` more in each that follows; past the
// strip's end that is in the next group's rows.
template <int64_t ahead, int locality>
void prefetch_ahead(const GemmRows& rows, int64_t at, int64_t apart = 0) {
  for (int i = 0; i < 4; i++) {
    const int64_t in_row = at + ahead + i * apart;
    const int64_t to = in_row < rows.run_bytes ? in_row : in_row - rows.run_bytes + 4 * rows.line_stride;
    __builtin_prefetch(rows.lines + to + i * rows.line_stride, 0, locality);
  }
}

void prefetch_rows(const GemmRows& rows, int64_t at, bool is_far) {
  prefetch_ahead<kNear / 4, 3>(rows, at);
  if (is_far) prefetch_ahead<kFar / 4, 2>(rows, at, far_apart(rows.run_bytes));
  __builtin_prefetch(rows.scales + at / 2 + kScalesNear);
}

typedef int8_t Bytes32 __attribute__((vector_size(32)));

// k = 0 … 7 to the order in which a line has them: its low nibbles are the even k, its high ones the odd k.
void order_as_nibbles(int8_t* bytes) {
  Bytes32 v;
  __builtin_memcpy(&v, bytes, 32);
  v = __builtin_shufflevector(v, v, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 16, 18, 20, 22, 17, 19, 21,
                              23, 24, 26, 28, 30, 25, 27, 29, 31);
  __builtin_memcpy(bytes, &v, 32);
}

// Group g of row m of A.
template <class Isa>
void quantize_half_group(const GemmFp4& gemm, int64_t m, int64_t g, ActivationGroup& out) {
  const Half* from = gemm.A + m * gemm.K + g * kGroup;
  Half padded[kGroup] = {};
  if (gemm.K - g * kGroup < kGroup) {
    for (int64_t k = 0; k < gemm.K - g * kGroup; k++) padded[k] = from[k];
    from = padded;
  }
  alignas(64) float x[kGroup];
  Isa::store(x, Isa::load_half(reinterpret_cast<const uint8_t*>(from)), kBlockRows);
  Isa::store(x + kBlockRows, Isa::load_half(reinterpret_cast<const uint8_t*>(from + kBlockRows)), kBlockRows);
  quantize_group<Isa>(x, kActivationBits, out);
  order_as_nibbles(out.high);
  order_as_nibbles(out.low);
}

// Adds a group's products to the sums of the strip's tokens: 16 columns after 16 columns, of each all tokens.
template <class Isa, bool is_single>
void walk_columns(const GemmRows& rows, int64_t num_blocks, const ActivationGroup* x, int num_tokens, float* sums) {
  const bool is_far = asks_far(true);
  for (int64_t b = 0; b < num_blocks; b++) {
    prefetch_rows(rows, b * kLineBytes, is_far);
    const Lines lines{rows.lines + b * kLineBytes, rows.line_stride};
    const GroupScales<Isa, GemmLayout> scales[1] = {
        GroupScales<Isa, GemmLayout>::load(rows.scales + b * kLineBytes / 2)};
    float* to = sums + b * num_tokens * kBlockRows;
    if constexpr (is_single) {
      const Lines groups[1] = {lines};
      typename Isa::Floats y[1][1] = {{Isa::load(to)}};
      add_groups<Isa, GemmLayout, 2>(groups, scales, x, y);
      Isa::store(to, y[0][0]);
    } else {
      const decltype(Isa::template decode<GemmLayout>(lines)) groups[1] = {Isa::template decode<GemmLayout>(lines)};
      add_groups_to_all<Isa, GemmLayout, 2, Isa::side_tokens(1)>(groups, scales, x, num_tokens, to, 0);
    }
  }
}

template <class Isa>
void walk(const GemmRows& rows, int64_t num_blocks, const ActivationGroup* x, int num_tokens, float* sums) {
  if (num_tokens == 1) return walk_columns<Isa, true>(rows, num_blocks, x, 1, sums);
  walk_columns<Isa, false>(rows, num_blocks, x, num_tokens, sums);
}

template <class Isa>
void gemm_fp4_strip(const GemmFp4Strip& strip) {
  const GemmFp4& gemm = *strip.gemm;
  const int64_t num_blocks = (strip.num_columns + kBlockRows - 1) / kBlockRows;
  const int64_t whole_blocks = strip.num_columns / kBlockRows;
  const int64_t left = gemm.M - strip.first_token;
  const int num_stored = left <= 0 ? 0 : left < strip.num_tokens ? static_cast<int>(left) : strip.num_tokens;

  alignas(64) float sums[kStripAccumulators];
  for (int64_t i = 0; i < strip.num_tokens * num_blocks * kBlockRows; i++) sums[i] = 0;
  ActivationGroup x[kMaxStripTokens];
  for (int t = num_stored; t < strip.num_tokens; t++) x[t] = {};

  for (int64_t g = 0; g * kGroup < gemm.K; g++) {
    for (int t = 0; t < num_stored; t++) quantize_half_group<Isa>(gemm, strip.first_token + t, g, x[t]);
    const uint32_t* B = gemm.B + 4 * g * gemm.N + strip.first_column;
    const Half* scales = gemm.scales + g * kGroup / gemm.group_size * gemm.N + strip.first_column;
    const int num_rows = gemm.K / 8 - 4 * g < 4 ? static_cast<int>(gemm.K / 8 - 4 * g) : 4;
    const bool is_whole = num_rows == 4;
    if (is_whole) {
      const GemmRows rows = {.lines = reinterpret_cast<const uint8_t*>(B),
                             .scales = reinterpret_cast<const uint8_t*>(scales),
                             .line_stride = gemm.N * 4,
                             .run_bytes = whole_blocks * kLineBytes};
      walk<Isa>(rows, whole_blocks, x, strip.num_tokens, sums);
    }
    for (int64_t b = is_whole ? whole_blocks : 0; b < num_blocks; b++) {
      alignas(64) uint32_t block[4][kBlockRows] = {};
      Half block_scales[kBlockRows] = {};
      const int64_t first = b * kBlockRows;
      const int64_t num_columns = strip.num_columns - first < kBlockRows ? strip.num_columns - first : kBlockRows;
      for (int64_t n = 0; n < num_columns; n++) {
        for (int p = 0; p < num_rows; p++) block[p][n] = B[p * gemm.N + first + n];
        block_scales[n] = scales[first + n];
      }
      const GemmRows rows = {.lines = reinterpret_cast<const uint8_t*>(block),
                             .scales = reinterpret_cast<const uint8_t*>(block_scales),
                             .line_stride = kLineBytes,
                             .run_bytes = kLineBytes};
      walk<Isa>(rows, 1, x, strip.num_tokens, sums + first * strip.num_tokens);
    }
  }

  for (int t = 0; t < num_stored; t++) {
    for (int64_t b = 0; b < num_blocks; b++) {
      const int64_t first = b * kBlockRows;
      const int64_t columns = strip.num_columns - first < kBlockRows ? strip.num_columns - first : kBlockRows;
      const int64_t at = (strip.first_token + t) * gemm.N + strip.first_column + first;
      const typename Isa::Floats y =
          Isa::mul(Isa::load(sums + first * strip.num_tokens + t * kBlockRows), Isa::broadcast(&GemmLayout::factor));
      if (gemm.C_float != nullptr) {
        Isa::store(gemm.C_float + at, y, static_cast<int>(columns));
      } else {
        Isa::store_half(reinterpret_cast<uint16_t*>(gemm.C_half + at), y, static_cast<int>(columns));
      }
    }
  }
}

}  // namespace
}  // namespace nibble
