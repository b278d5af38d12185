// One strip of C = A * B on the public layout of dispatch_gemm_fp4, without repacking: 64 bytes of a row of B are 16
// columns of 8 k, which the packed linears' instructions read as they are.
//
// Cost    B and its scales are read once for all tokens of the strip. With one token it is bound by memory.
// Work    group after group of 32 k (4 rows of B); within it, along the columns, so that each row is read in a long
// run.
//         Sums wait in an array that stays in the first- or second-level cache.
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

// Prefetches what is `ahead` bytes further in each of the 4 rows; past the strip's end that is in the next group's
// rows.
template <int64_t ahead, int locality>
void prefetch_ahead(const GemmRows& rows, int64_t at) {
  const int64_t to = at + ahead < rows.run_bytes ? at + ahead : at + ahead - rows.run_bytes + 4 * rows.line_stride;
  for (int i = 0; i < 4; i++) __builtin_prefetch(rows.lines + to + i * rows.line_stride, 0, locality);
}

void prefetch_rows(const GemmRows& rows, int64_t at) {
  prefetch_ahead<kNear / 4, 3>(rows, at);
  prefetch_ahead<kFar / 4, 2>(rows, at);
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
  quantize_group<Isa>(x, out);
  order_as_nibbles(out.high);
  order_as_nibbles(out.low);
}

// sums[t] += group of 16 columns, for T tokens; sums of a token are sum_stride floats apart.
template <class Isa, class Layout, int T>
void add_to_sums(const uint8_t* lines, int64_t line_stride, const ActivationGroup* x, const uint8_t* scales,
                 float* sums, int64_t sum_stride) {
  typename Isa::Floats y[T];
  for (int t = 0; t < T; t++) y[t] = Isa::load(sums + t * sum_stride);
  add_dots<Isa, Layout, 0, T>(lines, line_stride, x, scales, y);
  for (int t = 0; t < T; t++) Isa::store(sums + t * sum_stride, y[t], kBlockRows);
}

// The whole blocks of a strip, for T tokens; only the first of them need to prefetch.
template <class Isa, int T>
void walk_columns(const GemmRows& rows, int64_t num_blocks, bool is_first, const ActivationGroup* x, float* sums,
                  int64_t sum_stride) {
  for (int64_t b = 0; b < num_blocks; b++) {
    if (is_first) prefetch_rows(rows, b * kLineBytes);
    add_to_sums<Isa, GemmLayout, T>(rows.lines + b * kLineBytes, rows.line_stride, x, rows.scales + b * kLineBytes / 2,
                                    sums + b * kBlockRows, sum_stride);
  }
}

// The same in tiles of 64 columns, each decoded once for all tokens.
template <class Isa>
void walk_tiles(const GemmRows& rows, int64_t num_blocks, const ActivationGroup* x, int num_tokens, float* sums,
                int64_t sum_stride) {
  constexpr int tile_blocks = 4, block_bytes = 2 * 4 * kLineBytes;
  alignas(64) uint8_t decoded[tile_blocks * block_bytes];
  for (int64_t first = 0; first < num_blocks; first += tile_blocks) {
    const int64_t last = first + tile_blocks < num_blocks ? first + tile_blocks : num_blocks;
    for (int64_t b = first; b < last; b++) {
      prefetch_rows(rows, b * kLineBytes);
      Isa::decode_group(rows.lines + b * kLineBytes, rows.line_stride, decoded + (b - first) * block_bytes);
    }
    for (int t = 0; t < num_tokens; t += Isa::max_tokens)
      for (int64_t b = first; b < last; b++)
        add_to_sums<Isa, DecodedGemmLayout, Isa::max_tokens>(decoded + (b - first) * block_bytes, kLineBytes, x + t,
                                                             rows.scales + b * kLineBytes / 2,
                                                             sums + t * sum_stride + b * kBlockRows, sum_stride);
  }
}

// As many tokens as one walk can take, at most `count`; returns how many they were.
template <class Isa, int T = Isa::max_tokens>
int walk_for_some(const GemmRows& rows, int64_t num_blocks, bool is_first, const ActivationGroup* x, int count,
                  float* sums, int64_t sum_stride) {
  if constexpr (T > 1)
    if (count < T) return walk_for_some<Isa, T - 1>(rows, num_blocks, is_first, x, count, sums, sum_stride);
  walk_columns<Isa, T>(rows, num_blocks, is_first, x, sums, sum_stride);
  return T;
}

template <class Isa>
void walk(const GemmRows& rows, int64_t num_blocks, const ActivationGroup* x, const GemmFp4Strip& strip, float* sums,
          int64_t sum_stride) {
  if (strip.decode_first) return walk_tiles<Isa>(rows, num_blocks, x, strip.num_tokens, sums, sum_stride);
  for (int t = 0; t < strip.num_tokens;)
    t += walk_for_some<Isa>(rows, num_blocks, t == 0, x + t, strip.num_tokens - t, sums + t * sum_stride, sum_stride);
}

template <class Isa>
void gemm_fp4_strip(const GemmFp4Strip& strip) {
  const GemmFp4& gemm = *strip.gemm;
  const int64_t num_blocks = (strip.num_columns + kBlockRows - 1) / kBlockRows;
  const int64_t whole_blocks = strip.num_columns / kBlockRows;
  const int64_t sum_stride = num_blocks * kBlockRows;
  const int64_t left = gemm.M - strip.first_token;
  const int num_stored = left < strip.num_tokens ? static_cast<int>(left) : strip.num_tokens;

  alignas(64) float sums[kStripAccumulators];
  for (int64_t i = 0; i < strip.num_tokens * sum_stride; i++) sums[i] = 0;
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
      walk<Isa>(rows, whole_blocks, x, strip, sums, sum_stride);
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
      walk<Isa>(rows, 1, x, strip, sums + first, sum_stride);
    }
  }

  for (int t = 0; t < num_stored; t++) {
    for (int64_t b = 0; b < num_blocks; b++) {
      const int64_t first = b * kBlockRows;
      const int64_t columns = strip.num_columns - first < kBlockRows ? strip.num_columns - first : kBlockRows;
      const int64_t at = (strip.first_token + t) * gemm.N + strip.first_column + first;
      const typename Isa::Floats y =
          Isa::mul(Isa::load(sums + t * sum_stride + first), Isa::broadcast(&GemmLayout::factor));
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
