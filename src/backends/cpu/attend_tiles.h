// Attention over one chunk of cached positions by AMX tiles, for caches of halves. For files compiled for AVX-512; the
// float32 multiply-adds of attend_kernel.h become products of bfloat16.
//
// Parts   a number is taken as the sum of two bfloat16 (bf16_parts.h). A half has 11 bits, so that is exact.
// Cost    16 positions × 32 columns × 8 heads are two instructions of 16 cycles, since a tile holds the high parts of eight
//         heads beside their low parts. Splitting the cached values takes longer; up to kGroupTiles tiles of heads share it.
// Scores  [positions, heads] = keys · queries: a tile of keys has 16 positions by 32 columns, as they lie in the cache.
// Values  [heads, columns] = weights · values: of values, two positions are interleaved, as tiles want them.
// Order   the tiles multiply what was split some steps before, while the next is split. A head's sums depend neither on
//         the others nor on its place in a tile.
// Tiles   scores: 0 … 2 sums, 3 and 4 keys, 5 queries. Values: 0 … 5 sums, 6 weights, 7 values. Those that are used no more are
//         zeroed at once (AmxInstructions::zero).
#pragma once

#include <algorithm>

#include "backends/cpu/amx_tiles.h"
#include "backends/cpu/attend_int8_tiles.h"
#include "backends/cpu/bf16_parts.h"

namespace nibble {
namespace {

constexpr int kTileHeads = 8;
constexpr int kGroupTiles = 3;  // of heads: two tiles of sums for each, and two for what is multiplied
constexpr int kGroupHeads = kGroupTiles * kTileHeads;
constexpr int64_t kTileK = 32;  // columns of keys, or positions of values, that a product adds up
constexpr int64_t kTileBlocks = kAttendChunk / kTileK;
// One tile of heads gains nothing where keys and values come from memory, and loses where it is half empty.
constexpr int kFewestTileHeads = kTileHeads + 1;

struct alignas(64) Tile {
  uint32_t rows[kTileRows][16];  // pairs of bfloat16, or floats

  Vec floats(int row) const { return load_vec(reinterpret_cast<const float*>(rows[row])); }
  void set(int row, __m512i values) { _mm512_store_si512(rows[row], values); }
};

// A half's sign, exponent and seven bits are a bfloat16, three bits to the right and with another bias. What three bits
// are left with is the table's: their leading one goes to the exponent.
inline Parts parts_of_halves(__m512i x) {
  static constexpr Words kRest = [] {
    constexpr int kNone = -40 * 128;  // none left: far below the least bit of a float32 sum
    constexpr int kOfBits[8] = {kNone,        -10 * 128,     -9 * 128,      -9 * 128 + 64,
                                -8 * 128 + 0, -8 * 128 + 32, -8 * 128 + 64, -8 * 128 + 96};
    Words rest{};
    for (int i = 0; i < 32; i++) rest.at[i] = static_cast<uint16_t>(kOfBits[i % 8]);
    return rest;
  }();
  // Exponents of 0 (zeros and denormals) and 31 (infinities and NaNs) have other rules.
  const __m512i wrapped = _mm512_add_epi16(x, _mm512_set1_epi16(0x0400));
  if (_mm512_testn_epi16_mask(wrapped, _mm512_set1_epi16(0x7800)) != 0) [[unlikely]]
    return parts_of_floats(_mm512_cvtph_ps(_mm512_castsi512_si256(x)),
                           _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1)));
  const __m512i shifted = _mm512_and_si512(_mm512_srai_epi16(x, 3), _mm512_set1_epi16(-0x7001));
  const __m512i high = _mm512_add_epi16(shifted, _mm512_set1_epi16(0x3800));
  const __m512i exponent = _mm512_and_si512(high, _mm512_set1_epi16(-0x0080));
  return {high, _mm512_add_epi16(exponent, _mm512_permutexvar_epi16(x, kRest.vec()))};
}

// Columns d … d + 32 of a row, of which there are `count`. Beyond them is something finite.
inline Parts columns_of(const uint16_t* row, int64_t d, int64_t count) {
  if (count >= kTileK) return parts_of_halves(_mm512_loadu_si512(row + d));
  const __mmask32 mask = (1u << count) - 1;
  return parts_of_halves(_mm512_mask_loadu_epi16(_mm512_set1_epi16(0x3c00), mask, row + d));
}
inline Parts columns_of(const float* row, int64_t d, int64_t count) {
  return parts_of_floats(load_vec(row + d, count), load_vec(row + d + kVec, count - kVec));
}

// Turns rows into columns.
inline void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; j++) {
      t[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    v[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    v[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}

// Steps after which what was split is multiplied: by then it has left the store buffer, from which tiles cannot be loaded.
constexpr int64_t kTileDelay = 1;

// Two loops, one in the other, as one of all steps.
struct TileLoop {
  TileLoop(int64_t num_outer, int64_t num_inner) : num_outer(num_outer), num_inner(num_inner) {}

  bool done() const { return outer == num_outer; }
  int64_t slot() const { return steps % (kTileDelay + 1); }
  int64_t next() {  // how many steps there were
    if (++inner == num_inner) inner = 0, outer++;
    return ++steps;
  }
  int64_t num_outer, num_inner, outer = 0, inner = 0, steps = 0;
};

// Sums of a group of heads leave the tiles one step before they are used.
template <int num_tiles>
struct TileGroup {
  const AttendTask& t;
  int first_head, num_heads;
  Tile* queries;  // [num_tiles, steps of columns]: [pairs of columns, high parts of 8 heads and low ones]
  Tile* weights;  // [num_tiles, kTileBlocks]: [high parts of 8 heads and low ones, positions]
  Tile sums[2 * num_tiles];

  // Head h of tile `tile`: nullptr if there is none.
  template <class Pointer>
  Pointer of_head(Pointer first, int64_t stride, int tile, int h) const {
    const int head = kTileHeads * tile + h;
    return head < num_heads ? first + (first_head + head) * stride : nullptr;
  }

  void prepare_queries() {
    const int64_t steps = (t.head_dim + kTileK - 1) / kTileK;
    for (int tile = 0; tile < num_tiles; tile++)
      for (int64_t step = 0; step < steps; step++) {
        __m512i columns[16] = {};
        for (int h = 0; h < kTileHeads; h++) {
          const float* q = of_head(t.q, t.q_stride, tile, h);
          if (q == nullptr) break;
          const Parts parts = columns_of(q, step * kTileK, t.head_dim - step * kTileK);
          columns[h] = parts.high;
          columns[kTileHeads + h] = parts.low;
        }
        transpose(columns);
        for (int i = 0; i < 16; i++) queries[tile * steps + step].set(i, columns[i]);
      }
  }

  // t.scores of whole blocks: those beyond t.len are the last position's.
  template <class Instructions>
  void scores(RowsAhead& rows_ahead) {
    RowsAhead ahead = rows_ahead;
    const int64_t steps = (t.head_dim + kTileK - 1) / kTileK, blocks = (t.len + kTileRows - 1) / kTileRows;
    Tile keys[kTileDelay + 1][2];  // of a step: high and low
    const uint16_t* rows[kTileRows];
    int64_t finished = -1;  // the block whose sums have left the tiles
    const auto finish = [&] {
      for (int tile = 0; tile < num_tiles; tile++) {
        __m512i v[16];
        for (int i = 0; i < 16; i++) v[i] = _mm512_castps_si512(sums[tile].floats(i));
        transpose(v);
        for (int h = 0; h < kTileHeads; h++) {
          float* to = of_head(t.scores, kAttendChunk, tile, h);
          if (to == nullptr) break;
          const Vec score =
              (Vec(_mm512_castsi512_ps(v[h])) + Vec(_mm512_castsi512_ps(v[kTileHeads + h]))) * t.scale_log2;
          std::memcpy(to + finished * kTileRows, &score, sizeof score);
        }
      }
      finished = -1;
    };
    for (TileLoop split(blocks, steps), multiply(blocks, steps); !multiply.done();) {
      if (!split.done()) {
        if (split.inner == 0)
          for (int64_t j = 0; j < kTileRows; j++) {
            const int64_t p = split.outer * kTileRows + j;
            rows[j] = row_of<uint16_t>(t.k, p < t.len ? p : t.len - 1).values;
            if (first_head == 0) prefetch_row(rows[j], t.k.row_bytes);
          }
        ahead.ask();
        Tile(&to)[2] = keys[split.slot()];
        const int64_t d = split.inner * kTileK;
        for (int j = 0; j < kTileRows; j++) {
          const Parts parts = columns_of(rows[j], d, t.head_dim - d);
          to[0].set(j, parts.high);
          to[1].set(j, parts.low);
        }
      }
      if (finished >= 0) finish();
      if (split.next() <= kTileDelay) continue;
      Instructions::template load<3>(&keys[multiply.slot()][0], kTileRowBytes);
      Instructions::template load<4>(&keys[multiply.slot()][1], kTileRowBytes);
      for_each_constant<num_tiles>([&]<int tile>(std::integral_constant<int, tile>) {
        Instructions::template load<5>(queries + tile * steps + multiply.inner, kTileRowBytes);
        Instructions::template dot_bf16<tile, 3, 5>();
        Instructions::template dot_bf16<tile, 4, 5>();
        Instructions::template zero<5>();
        if (multiply.inner < steps - 1) return;
        Instructions::template store<tile>(&sums[tile], kTileRowBytes);
        Instructions::template zero<tile>();
        finished = multiply.outer;
      });
      Instructions::template zero<3>();
      Instructions::template zero<4>();
      multiply.next();
    }
    finish();
    rows_ahead = ahead;
  }

  // Of t.scores, once they are weights.
  void prepare_weights() {
    const int64_t blocks = (t.len + kTileK - 1) / kTileK;
    for (int tile = 0; tile < num_tiles; tile++)
      for (int h = 0; h < kTileHeads; h++) {
        const float* w = of_head(static_cast<const float*>(t.scores), kAttendChunk, tile, h);
        for (int64_t block = 0; block < blocks; block++) {
          const int64_t p = block * kTileK;
          const Parts parts = w != nullptr ? columns_of(w, p, t.len - p) : Parts{};
          weights[tile * kTileBlocks + block].set(h, parts.high);
          weights[tile * kTileBlocks + block].set(kTileHeads + h, parts.low);
        }
      }
  }

  // t.out
  template <class Instructions>
  void values(RowsAhead& rows_ahead) {
    RowsAhead ahead = rows_ahead;
    const int64_t steps = (t.v_dim + kTileK - 1) / kTileK, blocks = (t.len + kTileK - 1) / kTileK;
    Tile pairs[kTileDelay + 1][2][2];  // of a step: columns 8 i … 8 i + 4 and those between; high and low
    int64_t finished = -1;
    const auto finish = [&] {
      const int64_t d = finished * kTileK, count = t.v_dim - d < kTileK ? t.v_dim - d : kTileK;
      for (int tile = 0; tile < num_tiles; tile++)
        for (int h = 0; h < kTileHeads; h++) {
          float* out = of_head(t.out, t.v_dim, tile, h);
          if (out == nullptr) break;
          const Vec even = sums[2 * tile].floats(h) + sums[2 * tile].floats(kTileHeads + h);
          const Vec odd = sums[2 * tile + 1].floats(h) + sums[2 * tile + 1].floats(kTileHeads + h);
          const Vec halves[2] = {_mm512_shuffle_f32x4(even, odd, 0x44), _mm512_shuffle_f32x4(even, odd, 0xee)};
          const Vec columns[2] = {_mm512_shuffle_f32x4(halves[0], halves[0], 0xd8),
                                  _mm512_shuffle_f32x4(halves[1], halves[1], 0xd8)};
          std::memcpy(out + d, columns, static_cast<size_t>(count) * sizeof(float));
        }
      finished = -1;
    };
    for (TileLoop split(steps, blocks), multiply(steps, blocks); !multiply.done();) {
      if (!split.done()) {
        ahead.ask();
        Tile(&to)[2][2] = pairs[split.slot()];
        const int64_t d = split.outer * kTileK;
        const auto of_position = [&](int64_t p) {
          const uint16_t* row = row_of<uint16_t>(t.v, p < t.len ? p : t.len - 1).values;
          if (first_head == 0 && d == 0) prefetch_row(row, t.v.row_bytes);
          return columns_of(row, d, t.v_dim - d);
        };
        for (int j = 0; j < kTileRows; j++) {
          const int64_t p = split.inner * kTileK + 2 * j;
          const Parts a = of_position(p), b = of_position(p + 1);
          to[0][0].set(j, _mm512_unpacklo_epi16(a.high, b.high));
          to[1][0].set(j, _mm512_unpackhi_epi16(a.high, b.high));
          to[0][1].set(j, _mm512_unpacklo_epi16(a.low, b.low));
          to[1][1].set(j, _mm512_unpackhi_epi16(a.low, b.low));
        }
      }
      if (finished >= 0) finish();
      if (split.next() <= kTileDelay) continue;
      const Tile(&pair)[2][2] = pairs[multiply.slot()];
      const auto step = [&]<int tile>(std::integral_constant<int, tile>) {
        constexpr int even = 2 * tile, odd = 2 * tile + 1;
        Instructions::template load<6>(weights + tile * kTileBlocks + multiply.inner, kTileRowBytes);
        for (int part = 0; part < 2; part++) {
          Instructions::template load<7>(&pair[0][part], kTileRowBytes);
          Instructions::template dot_bf16<even, 6, 7>();
          Instructions::template zero<7>();
          Instructions::template load<7>(&pair[1][part], kTileRowBytes);
          Instructions::template dot_bf16<odd, 6, 7>();
          Instructions::template zero<7>();
        }
        Instructions::template zero<6>();
        if (multiply.inner < blocks - 1) return;
        Instructions::template store<even>(&sums[even], kTileRowBytes);
        Instructions::template zero<even>();
        Instructions::template store<odd>(&sums[odd], kTileRowBytes);
        Instructions::template zero<odd>();
        finished = multiply.outer;
      };
      for_each_constant<num_tiles>(step);
      multiply.next();
    }
    finish();
    rows_ahead = ahead;
  }
};

// Floats of AttendTask::scores.
inline int64_t tiles_attend_scratch(int64_t num_heads, int64_t head_dim) {
  const int64_t steps = (head_dim + kTileK - 1) / kTileK;
  return num_heads * kAttendChunk + kGroupTiles * (steps + kTileBlocks) * int64_t{sizeof(Tile) / sizeof(float)};
}

template <class Instructions>
void tiles_attend_of(const AttendTask& t) {
  Instructions::configure(TileConfig::of_whole_tiles());
  const int num_groups = (t.num_heads + kGroupHeads - 1) / kGroupHeads;
  Tile* weights = reinterpret_cast<Tile*>(t.scores + t.num_heads * kAttendChunk);
  Tile* queries = weights + kGroupTiles * kTileBlocks;
  const auto for_each_group = [&](const auto& call) {
    for (int h = 0; h < t.num_heads; h += kGroupHeads) {
      const int heads = t.num_heads - h < kGroupHeads ? t.num_heads - h : kGroupHeads;
      const auto with = [&]<int num_tiles>() { call(TileGroup<num_tiles>{t, h, heads, queries, weights, {}}); };
      if (heads <= kTileHeads)
        with.template operator()<1>();
      else if (heads <= 2 * kTileHeads)
        with.template operator()<2>();
      else
        with.template operator()<3>();
    }
  };
  const auto times = [](int64_t n, int64_t of) { return (n + of - 1) / of; };
  RowsAhead values(t.v, t.type, t.v.values == t.k.values ? 0 : t.len,
                   num_groups * times(t.len, kTileRows) * times(t.head_dim, kTileK));
  for_each_group([&](auto group) {
    group.prepare_queries();
    group.template scores<Instructions>(values);
  });
  for (int h = 0; h < t.num_heads; h++)
    exponentiate(t.scores + h * kAttendChunk, t.len, t.largest[h], t.total[h], [] {});
  RowsAhead keys(t.next_k, t.type, t.next_len, num_groups * times(t.len, kTileK) * times(t.v_dim, kTileK));
  for_each_group([&](auto group) {
    group.prepare_weights();
    group.template values<Instructions>(keys);
  });
  Instructions::release();
}

// attend_chunk, where tiles are worth it.
template <class Instructions>
void tiles_attend_chunk(const AttendTask& t) {
  if (t.type == KvCacheType::f16 && t.heads_of_key >= kFewestTileHeads)
    tiles_attend_of<Instructions>(t);
  else if (t.type == KvCacheType::q8_0 && t.heads_of_key >= kFewestInt8TileHeads)
    attend_chunk_int8<TileProducts<Instructions>>(t);
  else
    int8_attend_chunk(t);
}

// AVX-512's table, with attention by tiles.
template <class Instructions>
constexpr FloatKernels with_tiles(FloatKernels table) {
  table.interleaves_q8_0 = true;
  table.attend_chunk = tiles_attend_chunk<Instructions>;
  table.attend_scratch = [](int64_t num_heads, int64_t head_dim) {
    return std::max(tiles_attend_scratch(num_heads, head_dim), int8_attend_scratch(num_heads, head_dim));
  };
  table.heads_of_call = [](KvCacheType) { return HeadsOfCall{kTileHeads, kGroupHeads}; };
  return table;
}

}  // namespace
}  // namespace nibble
