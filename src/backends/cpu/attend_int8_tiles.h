// The products of attend_int8.h by AMX tiles.
//
// Scores  [bytes of a set, positions] = queries · keys: a tile of keys is a group of columns by 16 positions, as they lie in
//         the cache. Its sums leave the tile for each group, whose scales they are multiplied by.
// Values  [bytes of a set, columns] = weights · values, over 64 positions by 16 columns at a time, as they lie in the cache.
// Tiles   those that are used no more are zeroed at once (AmxInstructions::zero). Scores: 0 sums, 1 keys, 2 queries, or 2 … 5
//         where they stay. Values: 0 … 2 sums, 3 weights, 4 values.
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
  // Whose weights are made together: from tiles to vectors and back takes its time. With one 8 heads of 128 columns take 4 %
  // longer.
  static constexpr int64_t kWeightGroups = kMostWeightGroups;

  static void end() { Instructions::release(); }

  // As VectorProducts.
  static int64_t score_asks(int heads) { return (heads + kSetHeads - 1) / kSetHeads; }
  static int64_t value_asks(int heads, int64_t len) {
    return score_asks(heads) * 3 * ((len + kBlockLen - 1) / kBlockLen);
  }

  static void scores(const Int8Attention& a) {
    if (a.num_sets() == 1 && num_groups(a.t.head_dim) <= kMostKeptGroups) return scores_of<KeptQueries>(a);
    if (a.num_sets() == 1) return scores_of<LoadedQueries<1>>(a);
    a.num_sets() == 2 ? scores_of<LoadedQueries<2>>(a) : scores_of<LoadedQueries<3>>(a);
  }

  // Scores where queries come and go.
  template <int num_sets>
  struct LoadedQueries {
    static constexpr int kSets = num_sets;

    explicit LoadedQueries(const Int8Attention& a) : all(a.queries), groups(num_groups(a.t.head_dim)) {
      configure_scores(1);
    }

    template <int slot>
    void multiply(int64_t g, const uint8_t* codes, IntTile (&to)[num_sets]) const {
      Instructions::template load<1>(codes, kTileRowBytes);
      for (int set = 0; set < num_sets; set++) {
        Instructions::template load<2>(all[set * groups + g].bytes, kKvGroup);
        Instructions::template dot_int8<0, 2, 1>();
        Instructions::template zero<2>();
        if (set == num_sets - 1) Instructions::template zero<1>();
        Instructions::template store<0>(&to[set], kTileRowBytes);
        Instructions::template zero<0>();
      }
    }

    const QueryGroup* all;
    int64_t groups;
  };

  // Scores of one set over a few groups, whose queries stay.
  static constexpr int kMostKeptGroups = 4;
  struct KeptQueries {
    static constexpr int kSets = 1;

    explicit KeptQueries(const Int8Attention& a) {
      configure_scores(kMostKeptGroups);
      for_each_constant<kMostKeptGroups>([&]<int g>(std::integral_constant<int, g>) {
        if (g < num_groups(a.t.head_dim)) Instructions::template load<2 + g>(a.queries[g].bytes, kKvGroup);
      });
    }

    // Even groups in slot 0, odd ones in slot 1.
    template <int slot>
    void multiply(int64_t g, const uint8_t* codes, IntTile (&to)[1]) const {
      Instructions::template load<1>(codes, kTileRowBytes);
      g < 2 ? Instructions::template dot_int8<0, 2 + slot, 1>() : Instructions::template dot_int8<0, 4 + slot, 1>();
      Instructions::template zero<1>();
      Instructions::template store<0>(&to[0], kTileRowBytes);
      Instructions::template zero<0>();
    }
  };

  static void configure_scores(int query_tiles) {
    TileConfig config;
    config.set(0, kTileRows, kTileRowBytes);
    config.set(1, kKvGroup / 4, kTileRowBytes);
    for (int tile = 0; tile < query_tiles; tile++) config.set(2 + tile, kTileRows, kKvGroup);
    Instructions::configure(config);
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
    Vec scales[2];
    for (int64_t p = 0; p < len; p += kPartLen) {
      const auto [codes, scales_here] = codes_of(k, p);
      const uint8_t* following = codes_of(k, p + kPartLen).codes;
      Vec scores[num_sets][kSetHeads] = {};
      const auto multiply = [&]<int slot>(std::integral_constant<int, slot>, int64_t g) {
        if (a.first_head == 0)  // the positions that follow, before what is far
          for (int64_t b = 0; b < kGroupKeyBytes; b += 64) __builtin_prefetch(following + g * kGroupKeyBytes + b, 0, 3);
        for (int set = 0; set < num_sets; set++) ahead.ask();
        queries.template multiply<slot>(g, codes + g * kGroupKeyBytes, sums[slot]);
        scales[slot] = load_vec(scales_here + g * kKvBlock);
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

  // As VectorProducts. Few sums at a time: both halves of a group of columns for one set, else one for all sets.
  static void values(const Int8Attention& a, int64_t group, int64_t slot) {
    const int64_t last = std::min(group + kWeightGroups, num_groups(a.t.v_dim));
    for (int64_t g = group; group % kWeightGroups == 0 && g < last; g++) make_weights(a, g);
    if (a.num_sets() == 1) return weigh<1, 2>(a, group, slot, 0);
    for (int half = 0; half < 2; half++)
      a.num_sets() == 2 ? weigh<2, 1>(a, group, slot, half) : weigh<3, 1>(a, group, slot, half);
  }

  [[gnu::noinline]] static void make_weights(const Int8Attention& a, int64_t group) {
    const int64_t slot = group % kWeightGroups;
    a.prepare_steps(group, slot);
    RowsAhead ahead = a.rows_ahead;
    for (int set = 0; set < a.num_sets(); set++)
      for (int64_t p = 0; p < a.t.len; p += kBlockLen) {
        ahead.ask();
        WeightBlock& block = a.scratch.weights[slot][set][p / kBlockLen];
        const auto steps = a.steps_of(p);
        for (int h = 0; h < a.heads_of(set); h++)
          a.make_weights(set, h, p, steps, block.bytes[h], block.bytes[kSetHeads + h]);
      }
    a.rows_ahead = ahead;
  }

  // Halves from `first_half` on.
  template <int num_sets, int num_halves>
  static void weigh(const Int8Attention& a, int64_t group, int64_t slot, int first_half) {
    const auto for_each_sum = [](const auto& call) {
      for_each_constant<num_sets * num_halves>([&]<int tile>(std::integral_constant<int, tile>) {
        call.template operator()<tile, tile / num_halves, tile % num_halves>();
      });
    };
    RowsAhead ahead = a.rows_ahead;
    for (int64_t block = 0; block * kBlockLen < a.t.len; block++) {
      const ValueLines values = a.values_of(group, slot, block * kBlockLen);
      for_each_sum([&]<int tile, int set, int half>() {
        ahead.ask();
        if (half == 0)
          Instructions::template load<3>(&a.scratch.weights[group % kWeightGroups][set][block], kTileRowBytes);
        if (num_halves > 1 || set == 0) Instructions::template load<4>(values.half(first_half + half), values.stride);
        Instructions::template dot_uint8_int8<tile, 3, 4>();
        if (num_halves > 1 || set == num_sets - 1) Instructions::template zero<4>();
        if (half == num_halves - 1) Instructions::template zero<3>();
      });
    }
    a.rows_ahead = ahead;
    IntTile sums[num_sets * num_halves];
    for_each_sum([&]<int tile, int set, int half>() {
      Instructions::template store<tile>(&sums[tile], kTileRowBytes);
      Instructions::template zero<tile>();
    });
    for_each_sum([&]<int tile, int set, int half>() {
      for (int h = 0; h < a.heads_of(set); h++)
        a.put(group, group % kWeightGroups, first_half + half, set, h,
              {sums[tile].row(h), sums[tile].row(kSetHeads + h)});
    });
  }
};

}  // namespace
}  // namespace nibble
