// Attention over one chunk of cached positions of 8 bits in integers: int8 codes times 16-bit queries and weights, each of
// which is multiplied in two parts (int8_vectors.h).
//
// Queries  of a head are 16-bit integers times one scale. A score is, over the groups of 32 columns, the sum of the group's
//          integer product times the key's scale. What rounding a query changes is far below what rounding the keys to 8
//          bits did.
// Weights  take their value's scale with them, so that a group of columns is one integer sum over all positions: they are
//          16 bits of the largest scale of the group in the chunk, or 15 where products are of signed numbers only. They are
//          rounded up or down by their place among 16 positions (of 15 bits: 32), not to the nearest: many small ones keep
//          their sum.
// Sets     eight heads' first parts, then their second ones, are the 16 lanes (or tile rows) that lie together.
// Order    integer sums have none, the sums of floats follow the groups. A head's results depend on no other head.
#pragma once

#include <algorithm>
#include <array>

#include "backends/cpu/int8_vectors.h"
#include "backends/cpu/kernels.h"

namespace nibble {
namespace {

constexpr int kSetHeads = 8;
constexpr int kMaxSets = 3;  // of a call's heads that share what is made of the values
constexpr int64_t kKvGroup = Q8_0::group_size;
constexpr int64_t kBlockLen = kKvBlock;  // positions whose weights lie together
static_assert(kBlockLen == kExpLen);
constexpr int64_t kTurnedGroups = 2;  // of columns, at a time
// Whose weights are made together: one slot each, since first-level caches are small.
constexpr int64_t kMostWeightGroups = 2;
constexpr int64_t kPartLen = 16;  // positions whose keys lie together, and after which rows are asked for
constexpr int64_t kGroupKeyBytes = kPartLen * kKvGroup;
constexpr float kLargestQuery = 127 * 256 + 127;

// A set's queries in one group of columns: [parts of the set, columns], and what kKeyOffset adds.
struct alignas(64) QueryGroup {
  int8_t bytes[2 * kSetHeads][kKvGroup];
  int32_t offsets[2 * kSetHeads];
};

// A set's weights of 64 positions in one group of columns: [parts of the set, positions].
struct WeightBlock {
  Line bytes[2 * kSetHeads];
};

// 16 columns of the chunk's values, as KvLayout::values has them.
struct ValueColumns {
  Line positions[kAttendChunk / 4];
};

// After the scores. Then come the queries, [kMaxSets, groups of a key].
struct Int8Scratch {
  ValueColumns values[kTurnedGroups][kKvGroup / 16];  // where they are keys
  // Vectors use the first set's, for a few heads at a time.
  WeightBlock weights[kMostWeightGroups][kMaxSets][kAttendChunk / kBlockLen];
  alignas(64) float steps[kAttendChunk];  // what a softmax weight of 1 becomes at each position, in the group made last
  float weight_scales[kMostWeightGroups];
  float query_scales[kMaxSets][kSetHeads];
};

inline int64_t num_groups(int64_t columns) { return (columns + kKvGroup - 1) / kKvGroup; }

// Floats of AttendTask::scores.
inline int64_t int8_attend_scratch(int64_t num_heads, int64_t head_dim) {
  const auto groups = static_cast<size_t>(num_groups(head_dim));
  return num_heads * kAttendChunk +
         static_cast<int64_t>((sizeof(Int8Scratch) + kMaxSets * groups * sizeof(QueryGroup)) / sizeof(float));
}

// Of numbers below 2^22, the nearest or an even one.
inline IntVec nearest_integers(Vec x) {
  constexpr float kToInteger = 0x1.8p23f;  // a float of that size has no more bits than the integer's
  return std::bit_cast<IntVec>(x + kToInteger) - std::bit_cast<int32_t>(kToInteger);
}

inline IntVec larger_of(IntVec a, IntVec b) { return a > b ? a : b; }

// The largest of numbers without sign bits, taken for integers: a NaN counts as large, and stays.
inline float largest_of(IntVec x) {
  int32_t largest = 0;
  for (int i = 0; i < kVec; i++) largest = x[i] > largest ? x[i] : largest;
  return std::bit_cast<float>(largest);
}

inline uint32_t sum_of(IntVec x) {
#if defined(__AVX512VBMI__)  // as a loop, queries take twice as long
  return static_cast<uint32_t>(_mm512_reduce_add_epi32(__m512i(x)));
#else
  uint32_t sum = 0;
  for (int i = 0; i < kVec; i++) sum += static_cast<uint32_t>(x[i]);
  return sum;
#endif
}

// For integers up to `steps`. Nothing is left of what is too small to be divided by; of a NaN, the scale remains.
inline float inverse_of(float largest, float steps) { return largest > 1e-30f ? steps / largest : 0.0f; }

// The codes, as they are interleaved, and the scales of positions from p on.
inline KvCodes codes_of(const KvRun& run, int64_t p) { return codes_of_block(run, row_index(run, p)); }

inline void ask_for_scales(const KvRun& run, int64_t len) {
  for (int64_t p = 0; p < len; p += kKvBlock) {
    const uint16_t* scales = codes_of(run, p).scales;
    for (int64_t i = 0; i < kKvBlock * num_groups(run.row_bytes); i += 32) __builtin_prefetch(scales + i, 0, 2);
  }
}

// A group's lines of 16 columns and 4 positions each: those of the same columns lie `stride` bytes apart, the group's halves
// half_stride.
struct ValueLines {
  const uint8_t* first;
  int64_t stride, half_stride;

  const uint8_t* half(int i) const { return first + i * half_stride; }
  // kVec columns from kVec * i on.
  const uint8_t* vec(int i) const { return half(i * kVec / 16) + i * kVec % 16 * 4; }
};

// A chunk's attention for up to kMaxSets sets of heads, from `first_head` on.
struct Int8Attention {
  const AttendTask& t;
  const int first_head, num_heads;
  Int8Scratch& scratch;
  QueryGroup* const queries;
  RowsAhead& rows_ahead;

  Int8Attention(const AttendTask& task, int first, int heads, RowsAhead& ahead)
      : t(task),
        first_head(first),
        num_heads(heads),
        scratch(*reinterpret_cast<Int8Scratch*>(task.scores + task.num_heads * kAttendChunk)),
        queries(reinterpret_cast<QueryGroup*>(&scratch + 1)),
        rows_ahead(ahead) {}

  int num_sets() const { return (num_heads + kSetHeads - 1) / kSetHeads; }
  int heads_of(int set) const {
    return num_heads - set * kSetHeads < kSetHeads ? num_heads - set * kSetHeads : kSetHeads;
  }
  float* scores(int set, int64_t h) const { return t.scores + (first_head + set * kSetHeads + h) * kAttendChunk; }
  float* out(int set, int64_t h) const { return t.out + (first_head + set * kSetHeads + h) * t.v_dim; }
  QueryGroup* queries_of(int set) const { return queries + set * num_groups(t.head_dim); }

  void prepare_queries() const {
    for (int set = 0; set < num_sets(); set++)
      for (int h = 0; h < heads_of(set); h++) prepare_query(set, h);
  }

  [[gnu::noinline]] void prepare_query(int set, int h) const {
    const float* q = t.q + (first_head + set * kSetHeads + h) * t.q_stride;
    IntVec largest = {};
    for (int64_t d = 0; d < t.head_dim; d += kVec)
      largest = larger_of(largest, std::bit_cast<IntVec>(load_vec(q + d, t.head_dim - d)) & 0x7fffffff);
    const float limit = largest_of(largest);
    const Vec inverse = inverse_of(limit, kLargestQuery) - Vec{};
    scratch.query_scales[set][h] = limit / kLargestQuery * t.scale_log2;
    for (int64_t g = 0; g < num_groups(t.head_dim); g++) {
      QueryGroup& group = queries_of(set)[g];
      IntVec sums = {}, high_sums = {};
      for (int64_t i = 0; i < kKvGroup; i += kVec) {
        const int64_t d = g * kKvGroup + i;
        const IntVec x = nearest_integers(load_vec(q + d, t.head_dim - d) * inverse);
        put_query(x, group.bytes[h] + i, group.bytes[kSetHeads + h] + i);
        if constexpr (kKeyOffset == 0) continue;
        sums += x;
        high_sums += high_of(x);
      }
      const uint32_t of_high = sum_of(high_sums);
      group.offsets[h] = static_cast<int32_t>(-kKeyOffset * of_high);
      group.offsets[kSetHeads + h] = static_cast<int32_t>(-kKeyOffset * (sum_of(sums) - 256 * of_high));
    }
  }

  // Of groups [group, group + count), from keys.
  template <int count>
  [[gnu::noinline]] void turn_values(int64_t group) const {
    const KvRun run = t.v;
    const int64_t len = t.len;
    ValueColumns(*to)[2] = scratch.values;
    RowsAhead ahead = rows_ahead;
    for (int64_t p = 0; p < len; p += kPartLen) {
      ahead.ask();
      const uint8_t* keys = codes_of(run, p).codes + group * kGroupKeyBytes;
      for (int slot = 0; slot < count; slot++)
        for (int half = 0; half < 2; half++, keys += kGroupKeyBytes / 2)
          turn_columns(keys, &to[slot][half].positions[p / 4]);
    }
    rows_ahead = ahead;
  }

  bool values_are_keys() const { return t.v.values == t.k.values; }

  // Of a block of positions from p on.
  ValueLines values_of(int64_t group, int64_t slot, int64_t p) const {
    if (values_are_keys()) return {scratch.values[slot][0].positions[p / 4].bytes, 64, sizeof(ValueColumns)};
    return {codes_of(t.v, p).codes + 4 * group * kKvGroup, 4 * t.v.row_bytes, 64};
  }

  // Before the weights of a group, the slot's from now on.
  void prepare_steps(int64_t group, int64_t slot) const {
    float* steps = scratch.steps;
    IntVec largest = {};
    for (int64_t p = 0; p < t.len; p += kBlockLen) {
      const uint16_t* scales = codes_of(t.v, p).scales + group * kKvBlock;
      for (int64_t i = 0; i < kBlockLen; i += kVec) {
        const Vec found = p + i < t.len ? seen(load_vec(scales + i), p + i) : Vec{};
        largest = larger_of(largest, std::bit_cast<IntVec>(found));
        std::memcpy(steps + p + i, &found, sizeof found);
      }
    }
    const float limit = largest_of(largest);  // a softmax weight is at most 1
    scratch.weight_scales[slot] = limit / kLargestWeight;
    const Vec inverse = inverse_of(limit, kLargestWeight) - Vec{};
    for (int64_t p = 0; p < t.len; p += kVec) {
      const Vec step = load_vec(steps + p) * inverse;
      std::memcpy(steps + p, &step, sizeof step);
    }
  }
  // Zeros for positions that no head sees.
  Vec seen(Vec x, int64_t p) const {
    if (t.skip <= p && p + kVec <= t.len) [[likely]]
      return x;
    for (int i = 0; i < kVec; i++) x[i] = t.skip <= p + i && p + i < t.len ? x[i] : 0.0f;
    return x;
  }

  // What is added before the fraction is cut off: 1/32, 3/32 … 31/32 (of kRoundings = 16), in the order of their reversed
  // bits.
  static constexpr auto kRounding = [] {
    std::array<float, kRoundings> added{};
    for (int i = 0; i < kRoundings; i++) {
      int reversed = 0;
      for (int bit = 1; bit < kRoundings; bit *= 2) reversed = 2 * reversed + ((i & bit) != 0 ? 1 : 0);
      added[static_cast<size_t>(i)] = static_cast<float>(2 * reversed + 1) / (2 * kRoundings);
    }
    return added;
  }();

  // What a softmax weight of 1 becomes at the positions of a block from p on.
  struct BlockSteps {
    Vec of[kBlockLen / kVec];
  };
  BlockSteps steps_of(int64_t p) const {
    BlockSteps steps;
    std::memcpy(steps.of, scratch.steps + p, sizeof steps.of);
    return steps;
  }

  // The parts of a head's weights of that block, from the scores once they are exponentials.
  [[gnu::always_inline]] void make_weights(int set, int64_t h, int64_t p, const BlockSteps& steps, Line& first,
                                           Line& second) const {
    constexpr int kVectors = kBlockLen / kVec;
    const float* softmax = scores(set, h) + p;
    IntVec x[kVectors];
    for (int i = 0; i < kVectors; i++)
      x[i] = to_integers(fma(load_vec(softmax + i * kVec), steps.of[i], load_vec(&kRounding[i * kVec % kRoundings])));
    split_weights(x, first, second);
  }

  // kVec columns of a head, from column 32 group + kVec vec on, whose weights are those of `slot`.
  void put(int64_t group, int64_t slot, int vec, int set, int64_t h, const IntVec (&sums)[kPartSums]) const {
    const float total = t.total[first_head + set * kSetHeads + h];
    const float scale = scratch.weight_scales[slot] + 0.0f * total;  // a NaN among the scores is in none of the parts
    const Vec values = float_sum(sums) * scale;
    const int64_t d = group * kKvGroup + vec * kVec, count = t.v_dim - d;
    if (count >= kVec) [[likely]]
      std::memcpy(out(set, h) + d, &values, sizeof values);
    else if (count > 0)
      std::memcpy(out(set, h) + d, &values, static_cast<size_t>(count) * sizeof(float));
  }
};

// Runs of 4, 2 and 1 heads that make up so many, `most` at most in a run: calls with their first.
template <int most>
void for_runs_of_heads(int num_heads, const auto& call) {
  int64_t h = 0;
  if constexpr (most >= 4)
    for (; h + 4 <= num_heads; h += 4) call.template operator()<4>(h);
  for (; h + 2 <= num_heads; h += 2) call.template operator()<2>(h);
  for (; h < num_heads; h++) call.template operator()<1>(h);
}
template <int most>
int64_t num_runs_of_heads(int num_heads) {
  return num_heads / most + num_heads % most / 2 + num_heads % 2;
}

// The products by vectors.
struct VectorProducts {
  static void begin_values() {}
  static void end() {}

  // How often scores asks for rows in each block of 16 positions and group of columns, and values in each group.
  static int64_t score_asks(int heads) { return num_runs_of_heads<kMostScoreHeads>(heads); }
  static int64_t value_asks(int heads, int64_t len) {
    return num_runs_of_heads<kMostValueHeads>(heads) * kValueParts * ((len + kPartLen - 1) / kPartLen);
  }

  // t.scores of whole runs of 16 positions.
  static void scores(const Int8Attention& a) {
    const AttendTask& t = a.t;
    const int64_t groups = num_groups(t.head_dim);
    const bool near = a.first_head == 0 && asks_near();
    for (int64_t p = 0; p < t.len; p += kPartLen) {
      auto [codes, scales] = codes_of(t.k, p);
      if (near) prefetch_row(codes, kPartLen * t.k.row_bytes);
      for (int64_t g = 0; g < groups; g++, codes += kGroupKeyBytes, scales += kKvBlock) {
        KeyGroup keys{.p = p, .g = g, .is_last = g == groups - 1, .scales = {}, .codes = {}};
        for (int v = 0; v < kKeyVectors; v++) {
          keys.scales[v] = load_vec(scales + v * kVec);
          for (int k = 0; k < kKvGroup / 4; k++) keys.codes[k][v] = load_keys(codes + 4 * (kPartLen * k + v * kVec));
        }
        for (int set = 0; set < a.num_sets(); set++)
          for_runs_of_heads<kMostScoreHeads>(a.heads_of(set),
                                             [&]<int H>(int64_t h) { score_heads<H>(a, keys, set, h); });
      }
    }
  }

  static constexpr int kKeyVectors = kPartLen / kVec;

  // Of 16 positions from p on, in one group of columns.
  struct KeyGroup {
    int64_t p, g;
    bool is_last;
    Vec scales[kKeyVectors];
    Codes codes[kKvGroup / 4][kKeyVectors];
  };

  template <int H>
  static void score_heads(const Int8Attention& a, const KeyGroup& keys, int set, int64_t h) {
    const QueryGroup& q = a.queries_of(set)[keys.g];
    const int8_t* queries = q.bytes[h];
    const int32_t* offsets = q.offsets + h;
    const float* scales = a.scratch.query_scales[set] + h;
    float* scores = a.scores(set, h) + keys.p;
    a.rows_ahead.ask();
    IntVec sums[H][kKeyVectors][kPartSums];
    Fours parts[H][2];
    for (int i = 0; i < H; i++)
      for (int v = 0; v < kKeyVectors; v++)
        for (int sum = 0; sum < kPartSums; sum++)
          sums[i][v][sum] = (kKeyOffset == 0 ? 0 : offsets[sum * kSetHeads + i]) - IntVec{};
    for_each_constant<kKvGroup / 4>([&]<int k>(std::integral_constant<int, k>) {
      for (int i = 0; i < H; i++)
        for (int part = 0; part < 2; part++) {
          if constexpr (k % kFours == 0)
            parts[i][part] = load_fours(queries + (part * kSetHeads + i) * kKvGroup + 4 * k);
          for (int v = 0; v < kKeyVectors; v++) {
            IntVec& sum = sums[i][v][part % kPartSums];
            sum = add_scores<k % kFours>(sum, keys.codes[k][v].of(part), parts[i][part]);
          }
        }
      keep_order(sums);
    });
    for (int i = 0; i < H; i++, scores += kAttendChunk)
      for (int v = 0; v < kKeyVectors; v++) {
        float* to = scores + v * kVec;
        Vec score = keys.g > 0 ? load_vec(to) : Vec{};
        score = fma(to_floats(whole_sum(sums[i][v])), keys.scales[v], score);
        if (keys.is_last) score *= scales[i];
        std::memcpy(to, &score, sizeof score);
      }
  }

  static constexpr int kValueVectors = 2;  // whose sums are in registers together
  static constexpr int kValueParts = kKvGroup / kVec / kValueVectors;

  // t.out of a group of columns; `slot`: where its values lie if they were turned.
  static void values(const Int8Attention& a, int64_t group, int64_t slot) {
    a.prepare_steps(group, 0);
    for (int set = 0; set < a.num_sets(); set++)
      for_runs_of_heads<kMostValueHeads>(a.heads_of(set), [&]<int H>(int64_t h) {
        if (kMakesWeightsBeside)
          make_weights<H>(a, set, h, 0);
        else
          for (int64_t p = 0; p < a.t.len; p += kBlockLen) make_weights<H>(a, set, h, p);
        weigh<H, kMakesWeightsBeside>(a, group, slot, set, h, 0);
        for (int part = 1; part < kValueParts; part++) weigh<H, false>(a, group, slot, set, h, part * kValueVectors);
      });
  }

  // Of H heads and a block of positions from p on: so few stay in the first-level cache until they are used.
  template <int H>
  static void make_weights(const Int8Attention& a, int set, int64_t h, int64_t p) {
    WeightBlock& block = a.scratch.weights[0][0][p / kBlockLen];
    const auto steps = a.steps_of(p);
    for (int i = 0; i < H; i++) a.make_weights(set, h + i, p, steps, block.bytes[i], block.bytes[kSetHeads + i]);
  }

  // kValueVectors from first_vec on. makes_weights: of the block that follows.
  template <int H, bool makes_weights>
  static void weigh(const Int8Attention& a, int64_t group, int64_t slot, int set, int64_t h, int first_vec) {
    RowsAhead ahead = a.rows_ahead;
    IntVec sums[H][kValueVectors][kPartSums] = {};
    WeightBlock* weight_block = a.scratch.weights[0][0];
    for (int64_t block = 0; block < a.t.len; block += kBlockLen, weight_block++) {
      const ValueLines lines = a.values_of(group, slot, block);
      const uint8_t* value = lines.vec(first_vec);
      const int64_t to_next = lines.vec(first_vec + 1) - value;
      const uint8_t* of_first = weight_block->bytes[0].bytes;
      const int64_t len = a.t.len - block < kBlockLen ? a.t.len - block : kBlockLen;
      for (int64_t begin = 0; begin < len; begin += kPartLen) {
        ahead.ask();
        if (const int64_t i = begin / kPartLen, next = block + kBlockLen; makes_weights && i < H && next < a.t.len)
          a.make_weights(set, h + i, next, a.steps_of(next), weight_block[1].bytes[i],
                         weight_block[1].bytes[kSetHeads + i]);
        for (int64_t p = begin; p < begin + kPartLen; p += 4 * kFours) {
          keep_order(sums);
          Fours weights[H][2];
          for (int i = 0; i < H; i++)
            for (int part = 0; part < 2; part++)
              weights[i][part] = load_fours(of_first + sizeof(Line) * (part * kSetHeads + i) + p);
          for_each_constant<kFours>([&]<int four>(std::integral_constant<int, four>) {
            const Codes values[kValueVectors] = {load_values(value), load_values(value + to_next)};
            value += lines.stride;
            for (int i = 0; i < H; i++)
              for (int part = 0; part < 2; part++)
                for (int v = 0; v < kValueVectors; v++) {
                  IntVec& sum = sums[i][v][part % kPartSums];
                  sum = add_values<four>(sum, values[v].of(part), weights[i][part]);
                }
          });
        }
        keep_order(sums);
      }
      keep_order(sums);
    }
    for_each_constant<H * kValueVectors>([&]<int n>(std::integral_constant<int, n>) {  // or sums would lie in memory
      constexpr int i = n / kValueVectors, v = n % kValueVectors;
      a.put(group, 0, first_vec + v, set, h + i, sums[i][v]);
    });
    a.rows_ahead = ahead;
  }
};

template <class Products>
void attend_chunk_int8(const AttendTask& t) {
  const int64_t groups = num_groups(t.head_dim), v_groups = num_groups(t.v_dim);
  constexpr int kCallHeads = kMaxSets * kSetHeads;
  const int64_t calls = (t.num_heads + kCallHeads - 1) / kCallHeads;
  const auto for_heads = [&](RowsAhead& ahead, const auto& call) {
    for (int h = 0; h < t.num_heads; h += kCallHeads)
      call(Int8Attention(t, h, t.num_heads - h < kCallHeads ? t.num_heads - h : kCallHeads, ahead));
  };
  const bool values_are_keys = t.v.values == t.k.values;
  if (!values_are_keys) ask_for_scales(t.v, t.len);  // before the codes: the first weights need those of all positions
  RowsAhead values(t.v, t.type, values_are_keys ? 0 : t.len,
                   (t.len + 15) / 16 * groups * Products::score_asks(t.num_heads));
  for_heads(values, [&](const Int8Attention& a) {
    if (!t.same_queries || calls > 1) a.prepare_queries();
    Products::scores(a);
  });
  const int64_t blocks = (t.len + kBlockLen - 1) / kBlockLen;
  const int64_t turn_asks =
      values_are_keys ? (t.len + kPartLen - 1) / kPartLen * ((v_groups + kTurnedGroups - 1) / kTurnedGroups) : 0;
  RowsAhead keys(t.next_k, t.type, t.next_len,
                 t.num_heads * blocks + calls * turn_asks + v_groups * Products::value_asks(t.num_heads, t.len));
  for (int h = 0; h < t.num_heads; h++) {
    float* scores = t.scores + h * kAttendChunk;
    std::fill(scores, scores + t.skip, -INFINITY);
    RowsAhead ahead = keys;
    exponentiate(scores, t.len, t.largest[h], t.total[h], [&] { ahead.ask(); });
    keys = ahead;
    std::fill(scores + t.len, scores + blocks * kBlockLen, 0.0f);
  }
  Products::begin_values();
  for_heads(keys, [&](const Int8Attention& a) {
    for (int64_t g = 0; g < v_groups; g++) {
      const int64_t slot = g % kTurnedGroups;
      if (values_are_keys && slot == 0) g + 1 < v_groups ? a.template turn_values<2>(g) : a.template turn_values<1>(g);
      Products::values(a, g, slot);
    }
  });
  Products::end();
}

// attend_chunk without tiles.
inline void int8_attend_chunk(const AttendTask& t) {
  if (t.type == KvCacheType::q8_0)
    attend_chunk_int8<VectorProducts>(t);
  else
    attend_chunk(t);
}

constexpr FloatKernels with_int8(FloatKernels table) {
  table.interleaves_q8_0 = true;
  table.attend_chunk = int8_attend_chunk;
  table.attend_scratch = int8_attend_scratch;
  table.heads_of_call = [](KvCacheType type) {
    return type == KvCacheType::q8_0 ? HeadsOfCall{kSetHeads, kMaxSets * kSetHeads} : HeadsOfCall{4, 4};
  };
  return table;
}

}  // namespace
}  // namespace nibble
