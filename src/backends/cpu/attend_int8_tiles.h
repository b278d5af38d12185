// The products of attend_int8.h by AMX tiles.
//
// Scores  [positions, bytes of a set] = keys · queries: a tile of keys is 16 positions by a group of columns, as they lie in
//         the cache. Its sums leave the tile for each group, whose scales they are multiplied by.
// Values  [bytes of a set, columns] = weights · values, over 64 positions by 16 columns at a time.
// Tiles   scores: LoadedQueries, or KeptQueries: 0 and 1 sums, 2 keys, 4 … 7 queries. Values: 0 … 5 sums, 6 weights, 7 values.
#pragma once

#include "backends/cpu/amx_tiles.h"
#include "backends/cpu/attend_int8.h"

namespace nibble {
namespace {

// Below it a set is half empty, and VPDPBUSD is as fast.
constexpr int kFewestInt8TileHeads = kSetHeads / 2 + 1;

struct alignas(64) IntTile {
  int32_t rows[kTileRows][16];

  __m512i row(int i) const { return _mm512_load_si512(rows[i]); }
};

template <class Instructions>
struct TileProducts {
  static void end() { Instructions::release(); }

  // As VnniProducts.
  static int64_t score_asks(int heads) { return (heads + kSetHeads - 1) / kSetHeads; }
  static int64_t value_asks(int heads, int64_t len) {
    return score_asks(heads) * 2 * ((len + kBlockLen - 1) / kBlockLen);
  }

  static void scores(const Int8Attention& a) {
    if (a.num_sets() == 1 && num_groups(a.t.head_dim) <= kMostKeptGroups) return scores_of<KeptQueries>(a);
    if (a.num_sets() == 1) return scores_of<LoadedQueries<1>>(a);
    a.num_sets() == 2 ? scores_of<LoadedQueries<2>>(a) : scores_of<LoadedQueries<3>>(a);
  }

  // Scores where queries come and go: two products of each set at a time.
  template <int num_sets>
  struct LoadedQueries {
    static constexpr int kSets = num_sets;
    static constexpr int sums(int slot, int set) { return slot * num_sets + set; }
    static constexpr int keys(int slot) { return kNumTiles - 1 - (num_sets <= 2 ? slot : 0); }
    static constexpr int queries(int slot) { return 2 * num_sets + (num_sets <= 2 ? slot : 0); }

    explicit LoadedQueries(const Int8Attention& a) : all(a.queries), groups(num_groups(a.t.head_dim)) {
      TileConfig config;
      for (int slot : {0, 1}) {
        for (int set = 0; set < num_sets; set++) config.set(sums(slot, set), kTileRows, kTileRowBytes);
        config.set(keys(slot), kTileRows, kKvGroup);
        config.set(queries(slot), kKvGroup / 4, kTileRowBytes);
      }
      Instructions::configure(config);
    }

    template <int slot>
    void multiply(int64_t g, const int8_t* rows, int64_t row_bytes, IntTile (&to)[num_sets]) const {
      Instructions::template load<keys(slot)>(rows + g * kKvGroup, row_bytes);
      for_each_constant<num_sets>([&]<int set>(std::integral_constant<int, set>) {
        Instructions::template load<queries(slot)>(all[set * groups + g].columns, kTileRowBytes);
        Instructions::template zero<sums(slot, set)>();
        Instructions::template dot_int8<sums(slot, set), keys(slot), queries(slot)>();
        Instructions::template store<sums(slot, set)>(&to[set], kTileRowBytes);
      });
    }

    const QueryGroup* all;
    int64_t groups;
  };

  // Scores of one set over a few groups, whose queries stay. A tile has the keys of two groups: the other one's columns meet
  // zeros.
  static constexpr int kMostKeptGroups = 4;
  struct KeptQueries {
    static constexpr int kSets = 1;

    explicit KeptQueries(const Int8Attention& a) {
      Instructions::configure(TileConfig::of_whole_tiles());
      for_each_constant<kMostKeptGroups>([&]<int g>(std::integral_constant<int, g>) {
        IntTile padded{};
        if (g < num_groups(a.t.head_dim))
          std::memcpy(padded.rows[g % 2 * kKvGroup / 4], a.queries[g].columns, sizeof a.queries[g].columns);
        Instructions::template load<4 + g>(&padded, kTileRowBytes);
      });
    }

    template <int slot>
    void multiply(int64_t g, const int8_t* rows, int64_t row_bytes, IntTile (&to)[1]) const {
      constexpr int keys = 2;  // of groups g and g + 1 for slots 0 and 1
      if (slot == 0) Instructions::template load<keys>(rows + g * kKvGroup, row_bytes);
      Instructions::template zero<slot>();
      g < 2 ? Instructions::template dot_int8<slot, keys, 4 + slot>()
            : Instructions::template dot_int8<slot, keys, 6 + slot>();
      Instructions::template store<slot>(&to[0], kTileRowBytes);
    }
  };

  // Those of 16 positions, side by side.
  static const int8_t* copy_rows(const Int8Attention& a, int64_t p, int64_t groups) {
    const int8_t* rows[kTileRows];
    rows_of(a.t.k, a.t.len, p, rows);
    auto* copied = reinterpret_cast<int8_t*>(a.queries + kMaxSets * groups);
    for (int64_t i = 0; i < kTileRows; i++)
      std::memcpy(copied + i * groups * kKvGroup, rows[i], static_cast<size_t>(groups * kKvGroup));
    return copied;
  }

  // t.scores of whole runs of 16 positions.
  template <class Queries>
  static void scores_of(const Int8Attention& a) {
    constexpr int num_sets = Queries::kSets;
    const KvRun k = a.t.k;
    const int64_t groups = num_groups(a.t.head_dim), len = a.t.len;
    const Queries queries(a);
    RowsAhead ahead = a.rows_ahead;
    IntTile sums[2][num_sets];  // of a group, and of the next
    alignas(64) float scales[2][kTileRows];
    for (int64_t p = 0; p < len; p += kTileRows) {
      const int8_t* keys = row_of<int8_t>(k, p).values;
      int64_t row_bytes = k.row_bytes;
      if (a.first_head == 0)  // the positions that follow
        for (int64_t b = 0; b < kTileRows * row_bytes; b += 64)
          __builtin_prefetch(keys + kTileRows * row_bytes + b, 0, 3);
      if (row_index(k, p) + kTileRows > k.num_rows) [[unlikely]] {
        keys = copy_rows(a, p, groups);
        row_bytes = groups * kKvGroup;
      }

      Vec scores[num_sets][kTileRows] = {};  // [positions, bytes of a set]
      const auto multiply = [&]<int slot>(std::integral_constant<int, slot>, int64_t g) {
        for (int set = 0; set < num_sets; set++) ahead.ask();
        queries.template multiply<slot>(g, keys, row_bytes, sums[slot]);
        const Vec of_group = scales_of(k, g, p);
        std::memcpy(scales[slot], &of_group, sizeof of_group);
      };
      const auto add = [&](int slot) {
        for (int set = 0; set < num_sets; set++)
          for (int i = 0; i < kTileRows; i++)
            scores[set][i] = fma(to_floats(sums[slot][set].row(i)), scales[slot][i] - Vec{}, scores[set][i]);
      };
      constexpr std::integral_constant<int, 0> even;
      constexpr std::integral_constant<int, 1> odd;
      for (int64_t g = 0; g < groups; g += 2) {
        multiply(even, g);
        if (g > 0) add(1);
        if (g + 1 < groups) multiply(odd, g + 1);
        add(0);
      }
      if (groups % 2 == 0) add(1);
      for (int set = 0; set < num_sets; set++) put_scores(a, set, p, scores[set]);
    }
    a.rows_ahead = ahead;
  }

  static void put_scores(const Int8Attention& a, int set, int64_t p, const Vec (&scores)[kTileRows]) {
    __m256i whole[kTileRows];
    for (int i = 0; i < kTileRows; i++) {
      const __m256 high = _mm512_castps512_ps256(scores[i]);
      const __m256 low = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(scores[i]), 1));
      whole[i] = _mm256_castps_si256(_mm256_fmadd_ps(high, _mm256_set1_ps(256.0f), low));
    }
    __m512i of_heads[8];
    for (int i = 0; i < 8; i++) of_heads[i] = join(whole[kHalfRow[i]], whole[kHalfRow[i] + 4]);
    transpose_halves(of_heads);
    for (int h = 0; h < a.heads_of(set); h++) {
      const Vec score = as_floats(of_heads[h]) * a.scratch.query_scales[set][h];
      std::memcpy(a.scores(set, h) + p, &score, sizeof score);
    }
  }

  static void begin_values() { Instructions::configure(TileConfig::of_whole_tiles()); }

  // t.out of groups [group, group + count).
  static void values(const Int8Attention& a, int64_t group, int64_t count) {
    const int sets = a.num_sets();
    if (sets == 1 && count == 2) return weigh<1, 2>(a, group, 0);
    for (int64_t slot = 0; slot < count; slot++) {
      if (sets == 1) weigh<1, 1>(a, group, slot);
      if (sets == 2) weigh<2, 1>(a, group, slot);
      if (sets == 3) weigh<3, 1>(a, group, slot);
    }
  }

  // Groups of columns from `first_slot` on.
  template <int num_sets, int num_slots>
  static void weigh(const Int8Attention& a, int64_t group, int64_t first_slot) {
    const auto for_each_sum = [](const auto& call) {  // of a set, a slot and a half of its group
      for_each_constant<2 * num_sets * num_slots>([&]<int tile>(std::integral_constant<int, tile>) {
        call.template operator()<tile>(tile / 2 % num_sets, tile / 2 / num_sets, tile % 2);
      });
    };
    RowsAhead ahead = a.rows_ahead;
    for_each_sum([]<int tile>(int, int, int) { Instructions::template zero<tile>(); });
    for (int64_t block = 0; block * kBlockLen < a.t.len; block++)
      for_each_sum([&]<int tile>(int set, int slot, int half) {
        ahead.ask();
        if (half == 0) Instructions::template load<6>(&a.scratch.weights[first_slot + slot][set][block], kTileRowBytes);
        Instructions::template load<7>(a.scratch.values[first_slot + slot][half].positions + block * kTileRows,
                                       kTileRowBytes);
        Instructions::template dot_uint8_int8<tile, 6, 7>();
      });
    a.rows_ahead = ahead;
    IntTile sums[2 * num_sets * num_slots];
    for_each_sum([&]<int tile>(int, int, int) { Instructions::template store<tile>(&sums[tile], kTileRowBytes); });
    for_each_sum([&]<int tile>(int set, int slot, int half) {
      for (int h = 0; h < a.heads_of(set); h++)
        a.put(group + first_slot + slot, half, first_slot + slot, set, h, sums[tile].row(h),
              sums[tile].row(kSetHeads + h));
    });
  }
};

}  // namespace
}  // namespace nibble
