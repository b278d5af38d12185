// The products of attend_int8.h by AMX tiles.
//
// Scores  [bytes of a set, positions] = queries · keys: a tile of keys is a group of columns by 16 positions, as they lie in
//         the cache. Its sums leave the tile for each group, whose scales they are multiplied by.
// Values  [bytes of a set, columns] = weights · values, over 64 positions by 16 columns at a time, as they lie in the cache.
// Tiles   scores: LoadedQueries, or KeptQueries: 0 and 1 sums, 2 and 3 keys, 4 … 7 queries. Values: 0 … 5 sums, 6 weights,
//         7 values.
#pragma once

#include "backends/cpu/amx_tiles.h"
#include "backends/cpu/attend_int8.h"

namespace nibble {
namespace {

// Below it a set is half empty, and VPDPBUSD is as fast.
constexpr int kFewestInt8TileHeads = kSetHeads / 2 + 1;

struct alignas(64) IntTile {
  int32_t rows[kTileRows][16];

  IntVec row(int i) const { return IntVec(_mm512_load_si512(rows[i])); }
};

template <class Instructions>
struct TileProducts {
  static void end() { Instructions::release(); }

  // As VectorProducts.
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
        config.set(keys(slot), kKvGroup / 4, kTileRowBytes);
        config.set(queries(slot), kTileRows, kKvGroup);
      }
      Instructions::configure(config);
    }

    template <int slot>
    void multiply(int64_t g, const uint8_t* codes, IntTile (&to)[num_sets]) const {
      Instructions::template load<keys(slot)>(codes, kTileRowBytes);
      for_each_constant<num_sets>([&]<int set>(std::integral_constant<int, set>) {
        Instructions::template load<queries(slot)>(all[set * groups + g].bytes, kKvGroup);
        Instructions::template zero<sums(slot, set)>();
        Instructions::template dot_int8<sums(slot, set), queries(slot), keys(slot)>();
        Instructions::template store<sums(slot, set)>(&to[set], kTileRowBytes);
      });
    }

    const QueryGroup* all;
    int64_t groups;
  };

  // Scores of one set over a few groups, whose queries stay.
  static constexpr int kMostKeptGroups = 4;
  struct KeptQueries {
    static constexpr int kSets = 1;

    explicit KeptQueries(const Int8Attention& a) {
      TileConfig config;
      for (int slot : {0, 1}) {
        config.set(slot, kTileRows, kTileRowBytes);
        config.set(2 + slot, kKvGroup / 4, kTileRowBytes);
      }
      for (int g = 0; g < kMostKeptGroups; g++) config.set(4 + g, kTileRows, kKvGroup);
      Instructions::configure(config);
      for_each_constant<kMostKeptGroups>([&]<int g>(std::integral_constant<int, g>) {
        if (g < num_groups(a.t.head_dim)) Instructions::template load<4 + g>(a.queries[g].bytes, kKvGroup);
      });
    }

    // Even groups in slot 0, odd ones in slot 1.
    template <int slot>
    void multiply(int64_t g, const uint8_t* codes, IntTile (&to)[1]) const {
      Instructions::template load<2 + slot>(codes, kTileRowBytes);
      Instructions::template zero<slot>();
      g < 2 ? Instructions::template dot_int8<slot, 4 + slot, 2 + slot>()
            : Instructions::template dot_int8<slot, 6 + slot, 2 + slot>();
      Instructions::template store<slot>(&to[0], kTileRowBytes);
    }
  };

  // t.scores of whole runs of 16 positions.
  template <class Queries>
  static void scores_of(const Int8Attention& a) {
    constexpr int num_sets = Queries::kSets;
    const KvRun k = a.t.k;
    const int64_t groups = num_groups(a.t.head_dim), len = a.t.len;
    const Queries queries(a);
    RowsAhead ahead = a.rows_ahead;
    IntTile sums[2][num_sets];  // of a group, and of the next
    Vec scales[2];
    for (int64_t p = 0; p < len; p += kPartLen) {
      const uint8_t* codes = codes_of(k, p);
      if (a.first_head == 0)  // the positions that follow
        for (int64_t b = 0; b < kPartLen * k.row_bytes; b += 64)
          __builtin_prefetch(codes + kPartLen * k.row_bytes + b, 0, 3);
      Vec scores[num_sets][kSetHeads] = {};
      const auto multiply = [&]<int slot>(std::integral_constant<int, slot>, int64_t g) {
        for (int set = 0; set < num_sets; set++) ahead.ask();
        queries.template multiply<slot>(g, codes + g * kGroupKeyBytes, sums[slot]);
        scales[slot] = scales_of(k, g, p);
      };
      const auto add = [&](int slot) {
        for (int set = 0; set < num_sets; set++)
          for (int h = 0; h < kSetHeads; h++) {
            const IntVec whole = sums[slot][set].row(h) * 256 + sums[slot][set].row(kSetHeads + h);
            scores[set][h] = fma(to_floats(whole), scales[slot], scores[set][h]);
          }
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
      // By constants: an array with an address would go to memory before each store of a tile.
      for_each_constant<num_sets * kSetHeads>([&]<int i>(std::integral_constant<int, i>) {
        constexpr int set = i / kSetHeads, h = i % kSetHeads;
        if (h >= a.heads_of(set)) return;
        const Vec score = scores[set][h] * a.scratch.query_scales[set][h];
        std::memcpy(a.scores(set, h) + p, &score, sizeof score);
      });
    }
    a.rows_ahead = ahead;
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
    for (int64_t block = 0; block * kBlockLen < a.t.len; block++) {
      ValueLines values[num_slots];
      for (int64_t slot = 0; slot < num_slots; slot++)
        values[slot] = a.values_of(group + first_slot + slot, first_slot + slot, block * kBlockLen);
      for_each_sum([&]<int tile>(int set, int slot, int half) {
        ahead.ask();
        if (half == 0) Instructions::template load<6>(&a.scratch.weights[first_slot + slot][set][block], kTileRowBytes);
        Instructions::template load<7>(values[slot].half(half), values[slot].stride);
        Instructions::template dot_uint8_int8<tile, 6, 7>();
      });
    }
    a.rows_ahead = ahead;
    IntTile sums[2 * num_sets * num_slots];
    for_each_sum([&]<int tile>(int, int, int) { Instructions::template store<tile>(&sums[tile], kTileRowBytes); });
    for_each_sum([&]<int tile>(int set, int slot, int half) {
      for (int h = 0; h < a.heads_of(set); h++)
        a.put(group + first_slot + slot, half, first_slot + slot, set, h,
              {sums[tile].row(h), sums[tile].row(kSetHeads + h)});
    });
  }
};

}  // namespace
}  // namespace nibble
