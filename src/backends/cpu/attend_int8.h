// Attention over one chunk of cached positions of 8 bits in integers, for files compiled for AVX-512 with VNNI and VBMI:
// int8 codes times the bytes of 16-bit queries and weights.
//
// Queries  of a head are 16-bit integers times one scale: a high and a low byte, each signed. A score is, over the groups of
//          32 columns, the sum of the group's integer product times the key's scale. What rounding a query changes is far
//          below what rounding the keys to 8 bits did.
// Weights  take their value's scale with them, so that a group of columns is one integer sum over all positions: they are
//          16 bits, unsigned, of the largest scale of the group in the chunk. They are rounded up or down by their
//          place among 16 positions, not to the nearest: many small ones keep their sum.
// Sets     eight heads' high bytes, then their low bytes, are the 16 lanes (or tile rows) that lie together.
// Order    integer sums have none, the sums of floats follow the groups. A head's results depend on no other head.
#pragma once

#include <algorithm>
#include <array>

#include "backends/cpu/float_kernels.inc"

namespace nibble {
namespace {

constexpr int kSetHeads = 8;
constexpr int kMaxSets = 3;  // of a call's heads that share what is made of the values
constexpr int64_t kKvGroup = Q8_0::group_size;
constexpr int64_t kBlockLen = kKvInterleaved;  // positions whose weights lie together
constexpr int64_t kGroupsAtOnce = 2;
constexpr int kExpAsks = 4;       // of a head
constexpr int64_t kPartLen = 16;  // positions whose keys lie together, and after which rows are asked for
constexpr int64_t kGroupKeyBytes = kPartLen * kKvGroup;
constexpr float kLargestQuery = 127 * 256 + 127, kLargestWeight = 65535;

struct alignas(64) Line {
  uint8_t bytes[64];

  void set(__m512i to) { _mm512_store_si512(bytes, to); }
  __m512i vec() const { return _mm512_load_si512(bytes); }
};

// A set's queries in one group of columns: [bytes of the set, columns], and what a code's +128 adds.
struct alignas(64) QueryGroup {
  int8_t bytes[2 * kSetHeads][kKvGroup];
  int32_t offsets[2 * kSetHeads];
};

// A set's weights of 64 positions in one group of columns: [bytes of the set, positions].
struct WeightBlock {
  Line bytes[2 * kSetHeads];
};

// 16 columns of the chunk's values, as KvLayout::values has them.
struct ValueColumns {
  Line positions[kAttendChunk / 4];
};

// After the scores. Then come the queries, [kMaxSets, groups of a key].
struct Int8Scratch {
  ValueColumns values[kGroupsAtOnce][kKvGroup / 16];  // where they are keys
  WeightBlock weights[kGroupsAtOnce][kMaxSets][kAttendChunk / kBlockLen];
  float weight_scales[kGroupsAtOnce];
  float query_scales[kMaxSets][kSetHeads];
};

inline int64_t num_groups(int64_t columns) { return (columns + kKvGroup - 1) / kKvGroup; }

// Floats of AttendTask::scores.
inline int64_t int8_attend_scratch(int64_t num_heads, int64_t head_dim) {
  const auto groups = static_cast<size_t>(num_groups(head_dim));
  return num_heads * kAttendChunk +
         static_cast<int64_t>((sizeof(Int8Scratch) + kMaxSets * groups * sizeof(QueryGroup)) / sizeof(float));
}

inline __m512i as_ints(Vec x) { return _mm512_castps_si512(x); }
inline Vec as_floats(__m512i x) { return Vec(_mm512_castsi512_ps(x)); }
inline Vec to_floats(__m512i x) { return Vec(_mm512_cvtepi32_ps(x)); }

// The largest of numbers without sign bits. As integers: a NaN counts as large, and stays.
inline float largest_of(__m512i x) { return std::bit_cast<float>(_mm512_reduce_max_epu32(x)); }

// For integers up to `steps`. Nothing is left of what is too small to be divided by; of a NaN, the scale remains.
inline float inverse_of(float largest, float steps) { return largest > 1e-30f ? steps / largest : 0.0f; }

// Scales of 16 positions in one group, from a multiple of 16 on.
inline Vec scales_of(const KvRun& run, int64_t group, int64_t p) {
  return load_vec(run.scales + group * run.num_rows + row_index(run, p));
}

// Codes of positions from p on, as they are interleaved.
inline const uint8_t* codes_of(const KvRun& run, int64_t p) { return run.values + row_index(run, p) * run.row_bytes; }

inline void ask_for_scales(const KvRun& run, int64_t num_groups, int64_t len) {
  for (int64_t g = 0; g < num_groups; g++)
    for (int64_t i = 0; i < len; i += 32) __builtin_prefetch(run.scales + g * run.num_rows + run.first_row + i, 0, 2);
}

// A group's lines of 16 columns and 4 positions each: those of the same columns lie `stride` bytes apart, the group's halves
// half_stride.
struct ValueLines {
  const uint8_t* first;
  int64_t stride, half_stride;

  const uint8_t* half(int i) const { return first + i * half_stride; }
  __m512i line(int half, int64_t i) const { return _mm512_loadu_si512(this->half(half) + i * stride); }
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
  float* scores(int set, int h) const { return t.scores + (first_head + set * kSetHeads + h) * kAttendChunk; }
  float* out(int set, int h) const { return t.out + (first_head + set * kSetHeads + h) * t.v_dim; }
  QueryGroup* queries_of(int set) const { return queries + set * num_groups(t.head_dim); }

  void prepare_queries() const {
    for (int set = 0; set < num_sets(); set++)
      for (int h = 0; h < heads_of(set); h++) prepare_query(set, h);
  }

  [[gnu::noinline]] void prepare_query(int set, int h) const {
    const float* q = t.q + (first_head + set * kSetHeads + h) * t.q_stride;
    __m512i largest = _mm512_setzero_si512();
    for (int64_t d = 0; d < t.head_dim; d += kVec)
      largest = _mm512_max_epu32(
          largest, _mm512_and_si512(as_ints(load_vec(q + d, t.head_dim - d)), _mm512_set1_epi32(0x7fffffff)));
    const float limit = largest_of(largest);
    const Vec inverse = inverse_of(limit, kLargestQuery) - Vec{};
    scratch.query_scales[set][h] = limit / kLargestQuery * t.scale;
    for (int64_t g = 0; g < num_groups(t.head_dim); g++) {
      QueryGroup& group = queries_of(set)[g];
      __m512i sums = _mm512_setzero_si512(), high_sums = sums;
      for (int half = 0; half < 2; half++) {
        const int64_t d = g * kKvGroup + half * kVec;
        const __m512i x = _mm512_cvtps_epi32(load_vec(q + d, t.head_dim - d) * inverse);
        const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(128)), 8);
        const auto put_bytes = [&](int row, __m512i bytes) {
          _mm_store_si128(reinterpret_cast<__m128i*>(group.bytes[row] + half * kVec), _mm512_cvtepi32_epi8(bytes));
        };
        put_bytes(h, high);
        put_bytes(kSetHeads + h, x);  // x - 256 high
        sums = _mm512_add_epi32(sums, x);
        high_sums = _mm512_add_epi32(high_sums, high);
      }
      const int32_t of_high = _mm512_reduce_add_epi32(high_sums);
      group.offsets[h] = -128 * of_high;
      group.offsets[kSetHeads + h] = -128 * (_mm512_reduce_add_epi32(sums) - 256 * of_high);
    }
  }

  // Of groups [group, group + count), from keys.
  template <int count>
  [[gnu::noinline]] void turn_values(int64_t group) const {
    static constexpr Line kTurned = [] {  // 4 positions of 4 columns, in each quarter
      Line order{};
      for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>(i % 4 * 4 + i % 16 / 4);
      return order;
    }();
    const __m512i turned = kTurned.vec();
    const KvRun run = t.v;
    const int64_t len = t.len;
    ValueColumns(*to)[2] = scratch.values;
    RowsAhead ahead = rows_ahead;
    for (int64_t p = 0; p < len; p += kPartLen) {
      ahead.ask();
      const uint8_t* keys = codes_of(run, p) + group * kGroupKeyBytes;
      for (int slot = 0; slot < count; slot++)
        for (int half = 0; half < 2; half++, keys += kGroupKeyBytes / 2) {
          __m512i four[4];  // columns of 16 positions
          for (int i = 0; i < 4; i++) four[i] = _mm512_loadu_si512(keys + 64 * i);
          const __m512i first[2] = {_mm512_shuffle_i32x4(four[0], four[1], 0x44),
                                    _mm512_shuffle_i32x4(four[0], four[1], 0xee)};
          const __m512i second[2] = {_mm512_shuffle_i32x4(four[2], four[3], 0x44),
                                     _mm512_shuffle_i32x4(four[2], four[3], 0xee)};
          for (int i = 0; i < 4; i++) {
            const __m512i columns = i % 2 == 0 ? _mm512_shuffle_i32x4(first[i / 2], second[i / 2], 0x88)
                                               : _mm512_shuffle_i32x4(first[i / 2], second[i / 2], 0xdd);
            to[slot][half].positions[p / 4 + i].set(_mm512_shuffle_epi8(columns, turned));
          }
        }
    }
    rows_ahead = ahead;
  }

  bool values_are_keys() const { return t.v.values == t.k.values; }

  // Of a block of positions from p on.
  ValueLines values_of(int64_t group, int64_t slot, int64_t p) const {
    if (values_are_keys()) return {scratch.values[slot][0].positions[p / 4].bytes, 64, sizeof(ValueColumns)};
    return {codes_of(t.v, p) + 4 * group * kKvGroup, 4 * t.v.row_bytes, 64};
  }

  // Makes bytes of a group's weights, from the scores once they are exponentials, with zeros up to a whole block.
  void prepare_weights(int64_t group, int64_t slot) const {
    alignas(64) float scales[kAttendChunk];
    __m512i largest = _mm512_setzero_si512();
    for (int64_t p = 0; p < t.len; p += kBlockLen)
      for (int64_t i = p; i < p + kBlockLen; i += kVec) {
        const Vec found = i < t.len ? seen(scales_of(t.v, group, i), i) : Vec{};
        largest = _mm512_max_epu32(largest, as_ints(found));
        std::memcpy(scales + i, &found, sizeof found);
      }
    const float limit = largest_of(largest);  // a softmax weight is at most 1
    scratch.weight_scales[slot] = limit / kLargestWeight;
    const Vec inverse = inverse_of(limit, kLargestWeight) - Vec{};
    for (int64_t p = 0; p < t.len; p += kVec) {
      const Vec steps = load_vec(scales + p) * inverse;
      std::memcpy(scales + p, &steps, sizeof steps);
    }
    for (int set = 0; set < num_sets(); set++) prepare_weights_of_set(slot, set, scales);
  }
  // Zeros for positions that no head sees.
  Vec seen(Vec x, int64_t p) const {
    if (t.skip <= p && p + kVec <= t.len) [[likely]]
      return x;
    const auto below = [](int64_t count) { return (1u << std::clamp<int64_t>(count, 0, 16)) - 1; };
    return Vec(_mm512_maskz_mov_ps(static_cast<__mmask16>(below(t.len - p) & ~below(t.skip - p)), x));
  }

  // `steps`: what a softmax weight of 1 becomes at each position.
  [[gnu::noinline]] void prepare_weights_of_set(int64_t slot, int set, const float* steps) const {
    static constexpr Line kBytes = [] {  // of 32 integers: second bytes, then first ones
      Line order{};
      for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>(i % 32 * 4 + (i < 32 ? 1 : 0));
      return order;
    }();
    // What is added before the fraction is cut off: 1/32, 3/32 … 31/32, in the order of their reversed bits.
    static constexpr auto kRounding = [] {
      std::array<float, 16> added{};
      for (int i = 0; i < 16; i++) {
        const int reversed = (i & 1) << 3 | (i & 2) << 1 | (i & 4) >> 1 | (i & 8) >> 3;
        added[static_cast<size_t>(i)] = static_cast<float>(2 * reversed + 1) / 32;
      }
      return added;
    }();
    const __m512i bytes = kBytes.vec();
    const Vec rounding = load_vec(kRounding.data());
    const int heads = heads_of(set);
    RowsAhead ahead = rows_ahead;
    for (int64_t p = 0; p < t.len; p += kBlockLen) {
      ahead.ask();
      const Vec step[4] = {load_vec(steps + p), load_vec(steps + p + 16), load_vec(steps + p + 32),
                           load_vec(steps + p + 48)};
      WeightBlock& block = scratch.weights[slot][set][p / kBlockLen];
      const float* softmax = scores(set, 0) + p;
      for (int h = 0; h < heads; h++, softmax += kAttendChunk) {
        __m512i x[4];
        for (int i = 0; i < 4; i++) x[i] = _mm512_cvttps_epi32(fma(load_vec(softmax + i * kVec), step[i], rounding));
        const __m512i first = _mm512_permutex2var_epi8(x[0], bytes, x[1]);
        const __m512i second = _mm512_permutex2var_epi8(x[2], bytes, x[3]);
        block.bytes[h].set(_mm512_shuffle_i64x2(first, second, 0x44));
        block.bytes[kSetHeads + h].set(_mm512_shuffle_i64x2(first, second, 0xee));
      }
    }
    rows_ahead = ahead;
  }

  // 16 columns of a head, from column 32 group + 16 half on.
  void put(int64_t group, int half, int64_t slot, int set, int h, __m512i high, __m512i low) const {
    const float total = t.total[first_head + set * kSetHeads + h];
    const float scale = scratch.weight_scales[slot] + 0.0f * total;  // a NaN among the scores is none of the bytes
    const Vec values = (to_floats(high) * 256.0f + to_floats(low)) * scale;
    const int64_t d = group * kKvGroup + half * 16, count = t.v_dim - d < 16 ? t.v_dim - d : 16;
    if (count > 0) std::memcpy(out(set, h) + d, &values, static_cast<size_t>(count) * sizeof(float));
  }
};

// The products by VPDPBUSD.
struct VnniProducts {
  static void begin_values() {}
  static void end() {}

  // How often scores asks for rows in each block of 16 positions and group of columns, and values in each group.
  static int64_t score_asks(int heads) { return heads / 4 + heads % 4 / 2 + heads % 2; }
  static int64_t value_asks(int heads, int64_t len) { return score_asks(heads) * ((len + kPartLen - 1) / kPartLen); }

  // t.scores of whole runs of 16 positions.
  static void scores(const Int8Attention& a) {
    const AttendTask& t = a.t;
    const int64_t groups = num_groups(t.head_dim);
    for (int64_t p = 0; p < t.len; p += kPartLen) {
      const uint8_t* codes = codes_of(t.k, p);
      if (a.first_head == 0) prefetch_row(codes, kPartLen * t.k.row_bytes);
      for (int64_t g = 0; g < groups; g++, codes += kGroupKeyBytes) {
        __m512i keys[8];
        for (int i = 0; i < 8; i++)
          keys[i] = _mm512_xor_si512(_mm512_loadu_si512(codes + 64 * i), _mm512_set1_epi8(-128));
        const Vec scales = scales_of(t.k, g, p);
        for (int set = 0; set < a.num_sets(); set++) {
          const int heads = a.heads_of(set);
          int h = 0;
          for (; h + 4 <= heads; h += 4) score_heads<4>(a, set, h, p, g, keys, scales);
          for (; h + 2 <= heads; h += 2) score_heads<2>(a, set, h, p, g, keys, scales);
          for (; h < heads; h++) score_heads<1>(a, set, h, p, g, keys, scales);
        }
      }
    }
  }

  template <int H>
  static void score_heads(const Int8Attention& a, int set, int h, int64_t p, int64_t g, const __m512i (&keys)[8],
                          Vec scales) {
    const QueryGroup& q = a.queries_of(set)[g];
    const auto four = [&](int row, int k) {
      return _mm512_set1_epi32(load_unaligned<int32_t>(reinterpret_cast<const uint8_t*>(q.bytes[row] + 4 * k)));
    };
    __m512i high[H], low[H];
    a.rows_ahead.ask();
    for (int i = 0; i < H; i++) {
      high[i] = _mm512_set1_epi32(q.offsets[h + i]);
      low[i] = _mm512_set1_epi32(q.offsets[kSetHeads + h + i]);
    }
    for (int k = 0; k < 8; k++)
      for (int i = 0; i < H; i++) {
        high[i] = _mm512_dpbusd_epi32(high[i], keys[k], four(h + i, k));
        low[i] = _mm512_dpbusd_epi32(low[i], keys[k], four(kSetHeads + h + i, k));
      }
    for (int i = 0; i < H; i++) {
      float* to = a.scores(set, h + i) + p;
      Vec score = g > 0 ? load_vec(to) : Vec{};
      score = fma(to_floats(_mm512_add_epi32(_mm512_slli_epi32(high[i], 8), low[i])), scales, score);
      if (g == num_groups(a.t.head_dim) - 1) score *= a.scratch.query_scales[set][h + i];
      std::memcpy(to, &score, sizeof score);
    }
  }

  // t.out of groups [group, group + count).
  static void values(const Int8Attention& a, int64_t group, int64_t count) {
    for (int64_t slot = 0; slot < count; slot++)
      for (int set = 0; set < a.num_sets(); set++) {
        const int heads = a.heads_of(set);
        int h = 0;
        for (; h + 4 <= heads; h += 4) weigh<4>(a, group + slot, slot, set, h);
        for (; h + 2 <= heads; h += 2) weigh<2>(a, group + slot, slot, set, h);
        for (; h < heads; h++) weigh<1>(a, group + slot, slot, set, h);
      }
  }

  template <int H>
  static void weigh(const Int8Attention& a, int64_t group, int64_t slot, int set, int h) {
    RowsAhead ahead = a.rows_ahead;
    __m512i sums[H][2][2] = {};  // by high and low bytes, and by half of the group
    for (int64_t block = 0; block < a.t.len; block += kBlockLen) {
      const ValueLines lines = a.values_of(group, slot, block);
      const WeightBlock& bytes = a.scratch.weights[slot][set][block / kBlockLen];
      const int64_t len = a.t.len - block < kBlockLen ? a.t.len - block : kBlockLen;
      for (int64_t p = 0; p < len; p += 4) {
        if (p % kPartLen == 0) ahead.ask();
        const __m512i value[2] = {lines.line(0, p / 4), lines.line(1, p / 4)};
        for (int i = 0; i < H; i++)
          for (int part = 0; part < 2; part++) {
            const __m512i weights =
                _mm512_set1_epi32(load_unaligned<int32_t>(bytes.bytes[part * kSetHeads + h + i].bytes + p));
            for (int half = 0; half < 2; half++)
              sums[i][part][half] = _mm512_dpbusd_epi32(sums[i][part][half], weights, value[half]);
          }
      }
    }
    for (int i = 0; i < H; i++)
      for (int half = 0; half < 2; half++) a.put(group, half, slot, set, h + i, sums[i][0][half], sums[i][1][half]);
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
  if (!values_are_keys) ask_for_scales(t.v, v_groups, t.len);
  RowsAhead values(t.v, values_are_keys ? 0 : t.len, (t.len + 15) / 16 * groups * Products::score_asks(t.num_heads));
  for_heads(values, [&](const Int8Attention& a) {
    if (!t.same_queries || calls > 1) a.prepare_queries();
    Products::scores(a);
  });
  ask_for_scales(t.next_k, groups, t.next_len);
  const int64_t sets = (t.num_heads + kSetHeads - 1) / kSetHeads, blocks = (t.len + kBlockLen - 1) / kBlockLen;
  const int64_t turn_asks =
      values_are_keys ? (t.len + kPartLen - 1) / kPartLen * ((v_groups + kGroupsAtOnce - 1) / kGroupsAtOnce) : 0;
  RowsAhead keys(t.next_k, t.next_len,
                 t.num_heads * kExpAsks + calls * turn_asks +
                     v_groups * (sets * blocks + Products::value_asks(t.num_heads, t.len)));
  for (int h = 0; h < t.num_heads; h++) {
    float* scores = t.scores + h * kAttendChunk;
    std::fill(scores, scores + t.skip, -INFINITY);
    exponentiate(scores, t.len, t.largest[h], t.total[h]);
    std::fill(scores + t.len, scores + blocks * kBlockLen, 0.0f);
    for (int i = 0; i < kExpAsks; i++) keys.ask();
  }
  Products::begin_values();
  for_heads(keys, [&](const Int8Attention& a) {
    for (int64_t g = 0; g < v_groups; g += kGroupsAtOnce) {
      const int64_t count = v_groups - g < kGroupsAtOnce ? v_groups - g : kGroupsAtOnce;
      if (values_are_keys) count == 1 ? a.template turn_values<1>(g) : a.template turn_values<2>(g);
      for (int64_t slot = 0; slot < count; slot++) a.prepare_weights(g + slot, slot);
      Products::values(a, g, count);
    }
  });
  Products::end();
}

// attend_chunk of AVX-512.
inline void vnni_attend_chunk(const AttendTask& t) {
  if (t.type == KvCacheType::q8_0)
    attend_chunk_int8<VnniProducts>(t);
  else
    attend_chunk(t);
}

constexpr FloatKernels with_int8(FloatKernels table) {
  table.interleaves_q8_0 = true;
  table.attend_chunk = vnni_attend_chunk;
  table.attend_scratch = int8_attend_scratch;
  table.heads_of_call = [](KvCacheType type) {
    return type == KvCacheType::q8_0 ? HeadsOfCall{kSetHeads, kMaxSets * kSetHeads} : HeadsOfCall{4, 4};
  };
  return table;
}

}  // namespace
}  // namespace nibble
