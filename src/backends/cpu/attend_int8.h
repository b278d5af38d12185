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
constexpr int64_t kBlockLen = 64;  // positions whose weights lie together
constexpr int64_t kGroupsAtOnce = 2;
constexpr int kExpAsks = 4;      // of a head
constexpr int64_t kAskLen = 16;  // positions after which rows are asked for
constexpr float kLargestQuery = 127 * 256 + 127, kLargestWeight = 65535;

struct alignas(64) Line {
  uint8_t bytes[64];

  void set(__m512i to) { _mm512_store_si512(bytes, to); }
  __m512i vec() const { return _mm512_load_si512(bytes); }
};

// A set's queries in one group of columns: [columns by four, bytes of the set, 4 columns], and what a code's +128 adds.
struct QueryGroup {
  Line columns[kKvGroup / 4];
  Line offsets;  // [bytes of the set] int32
};

// A set's weights of 64 positions in one group of columns: [bytes of the set, positions].
struct WeightBlock {
  Line bytes[2 * kSetHeads];
};

// 16 columns of the chunk's values: [positions by four, columns, 4 positions].
struct ValueColumns {
  Line positions[kAttendChunk / 4];
};

// After the scores. Then come the queries, [kMaxSets, groups of a key], and room for the rows of 16 keys.
struct Int8Scratch {
  ValueColumns values[kGroupsAtOnce][kKvGroup / 16];
  WeightBlock weights[kGroupsAtOnce][kMaxSets][kAttendChunk / kBlockLen];
  float weight_scales[kGroupsAtOnce];
  float query_scales[kMaxSets][kSetHeads];
};

inline int64_t num_groups(int64_t columns) { return (columns + kKvGroup - 1) / kKvGroup; }

// Floats of AttendTask::scores.
inline int64_t int8_attend_scratch(int64_t num_heads, int64_t head_dim) {
  const auto groups = static_cast<size_t>(num_groups(head_dim));
  const size_t bytes = sizeof(Int8Scratch) + kMaxSets * groups * sizeof(QueryGroup) + 16 * groups * kKvGroup + 64;
  return num_heads * kAttendChunk + static_cast<int64_t>(bytes / sizeof(float));
}

inline __m512i as_ints(Vec x) { return _mm512_castps_si512(x); }
inline Vec as_floats(__m512i x) { return Vec(_mm512_castsi512_ps(x)); }
inline Vec to_floats(__m512i x) { return Vec(_mm512_cvtepi32_ps(x)); }

// The largest of numbers without sign bits. As integers: a NaN counts as large, and stays.
inline float largest_of(__m512i x) { return std::bit_cast<float>(_mm512_reduce_max_epu32(x)); }

// For integers up to `steps`. Nothing is left of what is too small to be divided by; of a NaN, the scale remains.
inline float inverse_of(float largest, float steps) { return largest > 1e-30f ? steps / largest : 0.0f; }

// Of eight vectors of which vector i holds rows i and i + 4 (i < 4), or i + 4 and i + 8, of eight columns each: a column
// of 16 rows in each vector.
inline void transpose_halves(__m512i (&v)[8]) {
  __m512i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 4; i++) {  // column i in lanes 0 and 2, column i + 4 in lanes 1 and 3
    const auto of = [&](int first) {
      return i % 2 == 0 ? _mm512_unpacklo_epi64(t[first + i / 2], t[first + 2 + i / 2])
                        : _mm512_unpackhi_epi64(t[first + i / 2], t[first + 2 + i / 2]);
    };
    const __m512i low = of(0), high = of(4);
    v[i] = _mm512_shuffle_i32x4(low, high, 0x88);
    v[i + 4] = _mm512_shuffle_i32x4(low, high, 0xdd);
  }
}
constexpr int kHalfRow[8] = {0, 1, 2, 3, 8, 9, 10, 11};  // the other half is of the row four further

inline __m512i join(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
inline __m256i load_group(const int8_t* codes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)); }

// Scales of 16 positions in one group. Beyond the run there may be anything.
inline Vec scales_of(const KvRun& run, int64_t group, int64_t p) {
  const uint16_t* scales = run.scales + group * run.num_rows;
  const int64_t row = row_index(run, p);
  if (row + 16 <= run.num_rows) return load_vec(scales + row);
  uint16_t found[16];
  for (int64_t i = 0; i < 16; i++) found[i] = scales[(row + i) % run.num_rows];
  return load_vec(found);
}

// Rows of positions p … p + count of a run of `len`; beyond the last it is the last's.
template <int count>
void rows_of(const KvRun& run, int64_t len, int64_t p, const int8_t* (&rows)[count]) {
  const int64_t first = row_index(run, p);
  if (first + count <= run.num_rows && p + count <= len) [[likely]] {
    rows[0] = reinterpret_cast<const int8_t*>(run.values) + first * run.row_bytes;
    for (int i = 1; i < count; i++) rows[i] = rows[i - 1] + run.row_bytes;
  } else {
    for (int64_t i = 0; i < count; i++) rows[i] = row_of<int8_t>(run, p + i < len ? p + i : len - 1).values;
  }
}

inline void ask_for_scales(const KvRun& run, int64_t num_groups, int64_t len) {
  for (int64_t g = 0; g < num_groups; g++)
    for (int64_t i = 0; i < len; i += 32) __builtin_prefetch(run.scales + g * run.num_rows + run.first_row + i, 0, 2);
}

// From four positions of a group, where the third and fourth are the permutation's second operand.
constexpr Line interleaving(int half) {
  Line order{};
  for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>(i % 4 * 32 + half * 16 + i / 4);
  return order;
}

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
    for (int set = 0; set < num_sets(); set++) {
      for (int h = 0; h < heads_of(set); h++) prepare_query(set, h);
      for (int64_t g = 0; g < num_groups(t.head_dim); g++) {
        QueryGroup& group = queries_of(set)[g];
        __m512i sum = _mm512_setzero_si512();
        for (const Line& four : group.columns) sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), four.vec());
        group.offsets.set(_mm512_sub_epi32(_mm512_setzero_si512(), sum));
      }
    }
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
    for (int64_t d = 0; d < num_groups(t.head_dim) * kKvGroup; d += kVec) {
      const __m512i x = _mm512_cvtps_epi32(load_vec(q + d, t.head_dim - d) * inverse);
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(128)), 8);
      uint32_t fours[2][4];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(fours[0]), _mm512_cvtepi32_epi8(high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(fours[1]), _mm512_cvtepi32_epi8(x));  // x - 256 high
      for (int i = 0; i < 4; i++)
        for (int part = 0; part < 2; part++)
          std::memcpy(queries_of(set)[d / kKvGroup].columns[d % kKvGroup / 4 + i].bytes + 4 * (part * kSetHeads + h),
                      &fours[part][i], 4);
    }
  }

  // Of groups [group, group + count). Positions beyond the last are the last once more.
  template <int count>
  [[gnu::noinline]] void interleave_values(int64_t group) const {
    static constexpr Line kOrder[2] = {interleaving(0), interleaving(1)};
    const __m512i order[2] = {kOrder[0].vec(), kOrder[1].vec()};
    const KvRun run = t.v;
    const int64_t len = t.len;
    ValueColumns(*to)[2] = scratch.values;
    RowsAhead ahead = rows_ahead;
    for (int64_t p = 0; p < len; p += 4) {
      if (p % kAskLen == 0) ahead.ask();
      const int8_t* rows[4];
      rows_of(run, len, p, rows);
      for (int slot = 0; slot < count; slot++) {
        const auto of_group = [&](int row) { return load_group(rows[row] + (group + slot) * kKvGroup); };
        const __m512i even = join(of_group(0), of_group(1)), odd = join(of_group(2), of_group(3));
        for (int i = 0; i < 2; i++) to[slot][i].positions[p / 4].set(_mm512_permutex2var_epi8(even, order[i], odd));
      }
    }
    rows_ahead = ahead;
  }

  // Makes bytes of a group's weights, from the scores once they are exponentials, with zeros up to a whole block.
  void prepare_weights(int64_t group, int64_t slot) const {
    alignas(64) float scales[kAttendChunk];
    __m512i largest = _mm512_setzero_si512();
    for (int64_t p = 0; p < t.len; p += kBlockLen)
      for (int64_t i = p; i < p + kBlockLen; i += kVec) {
        const Vec found = i + kVec <= t.len ? scales_of(t.v, group, i) : first_of(scales_of(t.v, group, i), t.len - i);
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
  static Vec first_of(Vec x, int64_t count) {
    return count > 0 ? Vec(_mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1), x)) : Vec{};
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
  static int64_t value_asks(int heads, int64_t len) { return score_asks(heads) * ((len + kAskLen - 1) / kAskLen); }

  // t.scores of whole runs of 16 positions.
  static void scores(const Int8Attention& a) {
    const AttendTask& t = a.t;
    const int64_t groups = num_groups(t.head_dim);
    for (int64_t p = 0; p < t.len; p += 16) {
      const int8_t* rows[16];
      rows_of(t.k, t.len, p, rows);
      if (a.first_head == 0)
        for (const int8_t* row : rows) prefetch_row(row, t.k.row_bytes);
      for (int64_t g = 0; g < groups; g++) {
        __m512i keys[8];
        for (int i = 0; i < 8; i++)
          keys[i] =
              join(load_group(rows[kHalfRow[i]] + g * kKvGroup), load_group(rows[kHalfRow[i] + 4] + g * kKvGroup));
        transpose_halves(keys);
        for (__m512i& four : keys) four = _mm512_xor_si512(four, _mm512_set1_epi8(-128));
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
    const auto four = [&](const Line& line, int byte) {
      return _mm512_set1_epi32(load_unaligned<int32_t>(line.bytes + 4 * byte));
    };
    __m512i high[H], low[H];
    a.rows_ahead.ask();
    for (int i = 0; i < H; i++) {
      high[i] = four(q.offsets, h + i);
      low[i] = four(q.offsets, kSetHeads + h + i);
    }
    for (int k = 0; k < 8; k++)
      for (int i = 0; i < H; i++) {
        high[i] = _mm512_dpbusd_epi32(high[i], keys[k], four(q.columns[k], h + i));
        low[i] = _mm512_dpbusd_epi32(low[i], keys[k], four(q.columns[k], kSetHeads + h + i));
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
    const ValueColumns(&values)[2] = a.scratch.values[slot];
    RowsAhead ahead = a.rows_ahead;
    __m512i sums[H][2][2] = {};  // by high and low bytes, and by half of the group
    for (int64_t p = 0; p < a.t.len; p += 4) {
      if (p % kAskLen == 0) ahead.ask();
      const __m512i value[2] = {values[0].positions[p / 4].vec(), values[1].positions[p / 4].vec()};
      const WeightBlock& block = a.scratch.weights[slot][set][p / kBlockLen];
      for (int i = 0; i < H; i++)
        for (int part = 0; part < 2; part++) {
          const Line& bytes = block.bytes[part * kSetHeads + h + i];
          const __m512i weights = _mm512_set1_epi32(load_unaligned<int32_t>(bytes.bytes + p % kBlockLen));
          for (int half = 0; half < 2; half++)
            sums[i][part][half] = _mm512_dpbusd_epi32(sums[i][part][half], weights, value[half]);
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
  const bool latent = t.v.values == t.k.values;
  if (!latent) ask_for_scales(t.v, v_groups, t.len);
  RowsAhead values(t.v, latent ? 0 : t.len, (t.len + 15) / 16 * groups * Products::score_asks(t.num_heads));
  for_heads(values, [&](const Int8Attention& a) {
    if (!t.same_queries || calls > 1) a.prepare_queries();
    Products::scores(a);
  });
  ask_for_scales(t.next_k, groups, t.next_len);
  const int64_t sets = (t.num_heads + kSetHeads - 1) / kSetHeads, blocks = (t.len + kBlockLen - 1) / kBlockLen;
  const int64_t inter_asks = (t.len + kAskLen - 1) / kAskLen * ((v_groups + kGroupsAtOnce - 1) / kGroupsAtOnce);
  RowsAhead keys(t.next_k, t.next_len,
                 t.num_heads * kExpAsks + calls * inter_asks +
                     v_groups * (sets * blocks + Products::value_asks(t.num_heads, t.len)));
  for (int h = 0; h < t.num_heads; h++) {
    float* scores = t.scores + h * kAttendChunk;
    exponentiate(scores, t.len, t.largest[h], t.total[h]);
    std::fill(scores + t.len, scores + blocks * kBlockLen, 0.0f);
    for (int i = 0; i < kExpAsks; i++) keys.ask();
  }
  Products::begin_values();
  for_heads(keys, [&](const Int8Attention& a) {
    for (int64_t g = 0; g < v_groups; g += kGroupsAtOnce) {
      const int64_t count = v_groups - g < kGroupsAtOnce ? v_groups - g : kGroupsAtOnce;
      count == 1 ? a.interleave_values<1>(g) : a.interleave_values<2>(g);
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
  table.attend_chunk = vnni_attend_chunk;
  table.attend_scratch = int8_attend_scratch;
  table.heads_of_call = [](KvCacheType type) {
    return type == KvCacheType::q8_0 ? HeadsOfCall{kSetHeads, kMaxSets * kSetHeads} : HeadsOfCall{4, 4};
  };
  return table;
}

}  // namespace
}  // namespace nibble
