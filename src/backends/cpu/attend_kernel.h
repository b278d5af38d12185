// Attention over one chunk of cached positions, for query heads that share a key and value head: written once over the
// vectors of an instruction set. float_kernels.inc includes it, so it follows the rules told there.
//
// Cost    a chunk's keys and values are read from memory once for all heads of the call. With 8 heads or more the
//         multiply-adds are the bound, not memory: 2 * heads of them for each value read.
// Rows    of any cache type become vectors of floats on the way (Columns): int8 with a scale costs the most.
// Scores  kVec of them at a time, heads × positions: kVec chains of multiply-adds, then their lanes are summed pairwise,
//         all kVec vectors together, in 2 * kVec shuffles.
// Values  heads × runs of kVec columns stay in registers while the positions of the chunk go by.
// Sums    a score is one chain over the head's columns and one tree over its lanes, a value one chain over the chunk's
//         positions: which heads and columns go together changes nothing.
#pragma once

#include "backends/cpu/float_kernels.h"
#include "backends/cpu/kernels.h"

namespace nibble {
namespace {

#if defined(__AVX512VBMI__)  // without it AVX-512 has 256 bits here
constexpr int kVec = 16;
constexpr int kSums = 16;  // of values, in 32 registers
#elif defined(__AVX2__)
constexpr int kVec = 8;
constexpr int kSums = 8;  // in 16
#elif defined(__aarch64__)
constexpr int kVec = 8;   // two registers: 4 at a time would load 5 for 4 multiply-adds
constexpr int kSums = 8;  // of two registers, in 32
#else
constexpr int kVec = 4;
constexpr int kSums = 4;
#endif
using Vec = float __attribute__((vector_size(kVec * sizeof(float)), aligned(sizeof(float))));

#if defined(__AVX512VBMI__)
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec scale_vec(uint16_t half) { return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(half))); }
inline Vec load_vec(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
#elif defined(__AVX2__)
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec scale_vec(uint16_t half) { return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(half))); }
inline Vec load_vec(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
#elif defined(__aarch64__)
struct VecHalves {
  float32x4_t low, high;
};
inline Vec fma(Vec a, Vec b, Vec c) {
  const auto x = std::bit_cast<VecHalves>(a), y = std::bit_cast<VecHalves>(b), z = std::bit_cast<VecHalves>(c);
  return std::bit_cast<Vec>(VecHalves{vfmaq_f32(z.low, x.low, y.low), vfmaq_f32(z.high, x.high, y.high)});
}
inline Vec scale_vec(uint16_t half) {
  const float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half)));
  return std::bit_cast<Vec>(VecHalves{scale, scale});
}
inline Vec load_vec(const uint16_t* from) {
  const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(from));
  return std::bit_cast<Vec>(VecHalves{vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)});
}
#else
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
inline Vec scale_vec(uint16_t half) { return half_to_float(half) - Vec{}; }
inline Vec load_vec(const uint16_t* from) {
  Vec out;
  for (int i = 0; i < kVec; i++) out[i] = half_to_float(from[i]);
  return out;
}
#endif

inline Vec load_vec(const float* from) {
  Vec out;
  std::memcpy(&out, from, sizeof out);
  return out;
}
inline float load_one(const float* from) { return *from; }
inline float load_one(const uint16_t* from) {
#if defined(__F16C__)
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*from)));
#elif defined(__aarch64__)
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(*from))), 0);
#else
  return half_to_float(*from);
#endif
}
// The first `count` values, then zeros.
template <class T>
Vec load_vec(const T* from, int64_t count) {
  if (count >= kVec) return load_vec(from);
  Vec out = {};
  for (int i = 0; i < count; i++) out[i] = load_one(from + i);
  return out;
}

// What is read of a position. T is float, uint16_t (halves) or int8_t (of q8_0).
template <class T>
struct CachedRow {
  const T* values;
};
template <>
struct CachedRow<int8_t> {
  const int8_t* values;
  const uint16_t* scales;  // of the first group; the others kKvBlock apart
};

// Columns of a row, from column d on, a multiple of kVec.
template <class T>
struct Columns {
  static constexpr int kVectors = 1;                                      // that are made together
  static constexpr int kScoreHeads = 4, kValueHeads = kVec >= 8 ? 4 : 2;  // that share them

  Columns(const CachedRow<T>& row, int64_t d) : from(row.values + d) {}
  Vec vec(int r) const { return load_vec(from + r * kVec); }
  Vec vec(int r, int64_t count) const { return load_vec(from + r * kVec, count); }
  const T* from;
};

// The vectors of a group share its scale. Making one takes four instructions, so more heads share it: on Zen 4, for 8 heads
// of 128 columns in cache, 28.1 us for 512 positions, 30.1 with four heads at a time (halves: 23.4).
template <>
struct Columns<int8_t> {
  static constexpr int kVectors = Q8_0::group_size / kVec;
  static constexpr int kScoreHeads = kVec >= 8 ? 8 : 4, kValueHeads = kVec / 2;

  Columns(const CachedRow<int8_t>& row, int64_t d)
      : scale(scale_vec(row.scales[d / Q8_0::group_size * kKvBlock])), codes(row.values + d) {}
  Vec vec(int r) const {
    int8_t __attribute__((vector_size(kVec))) v;
    std::memcpy(&v, codes + r * kVec, sizeof v);
    return __builtin_convertvector(v, Vec) * scale;
  }
  Vec vec(int r, int64_t) const { return vec(r); }  // the last group is filled up
  Vec scale;
  const int8_t* codes;
};

// Sums of neighbouring lanes: those of a, then those of b.
inline Vec add_pairs(Vec a, Vec b) {
#if defined(__AVX512VBMI__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__) || defined(__aarch64__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// Lane i: the sum of the lanes of v[i].
inline Vec sums_of_all(Vec (&v)[kVec]) {
  for (int count = kVec; count > 1; count /= 2)
    for (int i = 0; i < count / 2; i++) v[i] = add_pairs(v[2 * i], v[2 * i + 1]);
  return v[0];
}

// Bytes from a row to the one that is asked for now into the first-level cache: a near one, since RowsAhead had it brought
// into the second. At 4096 the same took up to a third longer on Sapphire Rapids.
constexpr int64_t kNextRowBytes = 1024;

inline int64_t row_index(const KvRun& run, int64_t i) {
  const int64_t row = run.first_row + i;
  return row < run.num_rows ? row : row - run.num_rows;
}

// From a row of q8_0 on, as far as its block goes.
struct KvCodes {
  const uint8_t* codes;
  const uint16_t* scales;
};
inline KvCodes codes_of_block(const KvRun& run, int64_t row) {
  const uint8_t* block = run.values + row / kKvBlock * kv_block_bytes(run.row_bytes);
  return {block + row % kKvBlock * run.row_bytes,
          reinterpret_cast<const uint16_t*>(block + kKvBlock * run.row_bytes) + row % kKvBlock};
}

template <class T>
CachedRow<T> row_of(const KvRun& run, int64_t i) {
  const int64_t row = row_index(run, i);
  if constexpr (std::is_same_v<T, int8_t>) {
    const KvCodes block = codes_of_block(run, row);
    return {reinterpret_cast<const T*>(block.codes), block.scales};
  } else {
    return {reinterpret_cast<const T*>(run.values + row * run.row_bytes)};
  }
}

// Zen 3 and 4 bring rows from the second-level cache in time by themselves: on Zen 4 asking takes up to 4 % longer.
inline bool asks_near() { return kFarPrefetches != FarPrefetches::if_computing; }

inline void prefetch_row(const void* row, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64)
    __builtin_prefetch(static_cast<const uint8_t*>(row) + kNextRowBytes + b, 0, 3);
}

// Rows that are read after what is computed now, asked for into the second-level cache in `visits` equal parts, so that
// memory has as much to do all the time. Of a ring's rows the part before its end; of q8_0 whole blocks.
class RowsAhead {
 public:
  RowsAhead(const KvRun& run, KvCacheType type, int64_t len, int64_t visits) {
    const bool in_blocks = type == KvCacheType::q8_0;
    const int64_t rows = in_blocks ? kKvBlock : 1, bytes = in_blocks ? kv_block_bytes(run.row_bytes) : run.row_bytes;
    const int64_t first = run.first_row / rows, last = (run.first_row + len + rows - 1) / rows;
    at_ = run.values + first * bytes;
    step_ = len > 0 ? ((last - first) * bytes + visits - 1) / visits : 0;
  }

  void ask() {
    const uint8_t* line = at_;
    at_ += step_;
    do {
      __builtin_prefetch(line, 0, 2);
      line += 64;
    } while (line < at_);
  }

 private:
  const uint8_t* at_;
  int64_t step_;
};

// Scores of H heads from head `h` on.
template <int H, class T>
void score_heads(const AttendTask& t, int h, RowsAhead& rows_ahead) {
  RowsAhead ahead = rows_ahead;  // in registers
  constexpr int P = kVec / H;    // positions at a time
  constexpr int R = Columns<T>::kVectors;
  const bool near = h == 0 && asks_near();
  const float* q[H];
  for (int i = 0; i < H; i++) q[i] = t.q + (h + i) * t.q_stride;
  for (int64_t p = 0; p < t.len; p += P) {
    CachedRow<T> k[P];
    for (int j = 0; j < P; j++) k[j] = row_of<T>(t.k, p + j < t.len ? p + j : t.len - 1);
    if (near)
      for (int j = 0; j < P; j++) prefetch_row(k[j].values, t.k.row_bytes);
    ahead.ask();
    Vec sums[kVec] = {};
    int64_t d = 0;
    for (; d + R * kVec <= t.head_dim; d += R * kVec) {
      [&]<int... j>(std::integer_sequence<int, j...>) {
        const Columns<T> columns[P] = {Columns<T>(k[j], d)...};
        for (int r = 0; r < R; r++) {
          const Vec key[P] = {columns[j].vec(r)...};
          for (int i = 0; i < H; i++) {
            const Vec query = load_vec(q[i] + d + r * kVec);
            ((sums[i * P + j] = fma(key[j], query, sums[i * P + j])), ...);
          }
        }
      }(std::make_integer_sequence<int, P>{});
    }
    for (; d < t.head_dim; d += kVec) {
      const int64_t count = t.head_dim - d;
      for (int j = 0; j < P; j++) {
        const Vec key = Columns<T>(k[j], d).vec(0, count);
        for (int i = 0; i < H; i++) sums[i * P + j] = fma(key, load_vec(q[i] + d, count), sums[i * P + j]);
      }
    }
    float scores[kVec];
    const Vec scaled = sums_of_all(sums) * t.scale_log2;
    std::memcpy(scores, &scaled, sizeof scores);
    for (int i = 0; i < H; i++) {  // whole ones: the rows of scores have room for them
      std::memcpy(t.scores + (h + i) * kAttendChunk + p, scores + i * P, P * sizeof(float));
    }
  }
  rows_ahead = ahead;
}

// x = 2^x for x <= 0, within 2.1 units in the last place, 1 for 0; of less than -125 as of -125, which is no denormal yet. The
// polynomial is the one of degree 5, beginning with 1, whose largest relative error for |r| <= 1/2 is least: 9.2e-8.
//
// Each step is done for all vectors before the next: the steps of one wait for each other, and in a row they would be all that
// a processor can look at.
template <size_t count>
void exp2_vecs(Vec (&x)[count]) {
  const auto all = [](float value) { return value - Vec{}; };
  const auto each = [](const auto& step) {
    for (size_t i = 0; i < count; i++) step(i);
  };
  constexpr float kToInteger = 0x1.8p23f;  // a float of that size has no more bits than the integer's
  Vec shifted[count], n[count], p[count];
  each([&](size_t i) { x[i] = x[i] < all(-125.0f) ? all(-125.0f) : x[i]; });  // NaN stays NaN
  each([&](size_t i) { shifted[i] = x[i] + kToInteger; });
  each([&](size_t i) { n[i] = shifted[i] - kToInteger; });
  each([&](size_t i) { x[i] -= n[i]; });
  each([&](size_t i) { p[i] = fma(x[i], all(0x1.5bba14p-10f), all(0x1.3cea88p-7f)); });
  for (float coefficient : {0x1.c6b752p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f, 1.0f})
    each([&](size_t i) { p[i] = fma(p[i], x[i], all(coefficient)); });
#if defined(__AVX512VBMI__)  // as fast as the multiplication on Zen 4, faster on Sapphire Rapids
  each([&](size_t i) { x[i] = _mm512_scalef_ps(p[i], n[i]); });
#else
  using Bits = uint32_t __attribute__((vector_size(sizeof(Vec))));
  const Bits one = std::bit_cast<Bits>(all(1.0f));
  each([&](size_t i) { x[i] = p[i] * std::bit_cast<Vec>((std::bit_cast<Bits>(shifted[i]) << 23) + one); });
#endif
}

// Of numbers without NaN.
inline float largest_lane(Vec x) {
#if defined(__AVX512VBMI__)
  return _mm512_reduce_max_ps(x);
#else
  float largest = x[0];
  for (int i = 1; i < kVec; i++) largest = x[i] > largest ? x[i] : largest;
  return largest;
#endif
}

constexpr int64_t kExpLen = 64;

// scores[p] = 2^(scores[p] - the largest); returns that and their sum. Up to a multiple of kExpLen they count as minus infinity,
// and become numbers too small for the sum. Before each kExpLen of them it calls between().
void exponentiate(float* scores, int64_t len, float& largest, float& total, const auto& between) {
  constexpr int kChains = kLanes / kVec, kTogether = kChains > kSums / 4 ? kChains : kSums / 4;
  static_assert(kAttendChunk % kExpLen == 0 && kExpLen % (kTogether * kVec) == 0);
  for (; len % kExpLen != 0; len++) scores[len] = -INFINITY;
  Vec top[kTogether];
  for (Vec& x : top) x = -INFINITY - Vec{};
  for (int64_t p = 0; p < len; p += kTogether * kVec)
    for (int i = 0; i < kTogether; i++) {
      const Vec x = load_vec(scores + p + i * kVec);
      top[i] = x > top[i] ? x : top[i];
    }
  for (int i = 1; i < kTogether; i++) top[0] = top[i] > top[0] ? top[i] : top[0];
  largest = largest_lane(top[0]);
  const Vec most = largest - Vec{};
  Vec totals[kChains] = {};
  for (int64_t p = 0; p < len; p += kTogether * kVec) {
    if (p % kExpLen == 0) between();
    Vec x[kTogether];
    for (int i = 0; i < kTogether; i++) x[i] = load_vec(scores + p + i * kVec) - most;
    exp2_vecs(x);
    std::memcpy(scores + p, x, sizeof x);
    for (int i = 0; i < kTogether; i++) totals[i % kChains] += x[i];
  }
  float lanes[kLanes];
  std::memcpy(lanes, totals, sizeof lanes);
  total = sum_of(lanes);
}

// out[h] = the sum over the positions of scores[h] times value, for H heads from `h` on and R runs of columns from `d`
// on, of which the last has `last_count` columns.
template <int H, int R, class T>
void weigh_values(const AttendTask& t, int h, int64_t d, int64_t last_count, RowsAhead& rows_ahead) {
  RowsAhead ahead = rows_ahead;                                           // in registers
  constexpr int G = Columns<T>::kVectors < R ? Columns<T>::kVectors : R;  // of R that are read together
  const bool near = h == 0 && d == 0 && asks_near();
  Vec sums[H][R] = {};
  for (int64_t p = 0; p < t.len; p++) {
    const CachedRow<T> v = row_of<T>(t.v, p);
    if (near) prefetch_row(v.values, t.v.row_bytes);
    ahead.ask();
    Vec value[R];
    for (int g = 0; g < R; g += G) {
      const Columns<T> columns(v, d + g * kVec);
      for (int r = 0; r < G; r++) value[g + r] = g + r + 1 < R ? columns.vec(r) : columns.vec(r, last_count);
    }
    for (int i = 0; i < H; i++) {
      const Vec weight = t.scores[(h + i) * kAttendChunk + p] - Vec{};
      for (int r = 0; r < R; r++) sums[i][r] = fma(value[r], weight, sums[i][r]);
    }
  }
  for (int i = 0; i < H; i++) {
    float* out = t.out + (h + i) * t.v_dim + d;
    std::memcpy(out, sums[i], (R - 1) * sizeof(Vec) + static_cast<size_t>(last_count) * sizeof(float));
  }
  rows_ahead = ahead;
}

// Runs of columns that H heads keep in registers together.
template <int H>
constexpr int kRuns = kSums / H < 4 ? kSums / H : 4;

template <int H, class T>
void weigh_heads(const AttendTask& t, int h, RowsAhead& ahead) {
  constexpr int R = kRuns<H>;
  int64_t d = 0;
  for (; d + R * kVec <= t.v_dim; d += R * kVec) weigh_values<H, R, T>(t, h, d, kVec, ahead);
  for (; d < t.v_dim; d += kVec) weigh_values<H, 1, T>(t, h, d, t.v_dim - d < kVec ? t.v_dim - d : kVec, ahead);
}

template <class T>
void attend_chunk_of(const AttendTask& t) {
  constexpr int S = Columns<T>::kScoreHeads, V = Columns<T>::kValueHeads;
  int h = 0;
  RowsAhead values(t.v, t.type, t.v.values == t.k.values ? 0 : t.len, t.num_heads * ((t.len + kVec - 1) / kVec));
  for (; h + S <= t.num_heads; h += S) score_heads<S, T>(t, h, values);
  for (; h + 4 <= t.num_heads; h += 4) score_heads<4, T>(t, h, values);
  for (; h + 2 <= t.num_heads; h += 2) score_heads<2, T>(t, h, values);
  for (; h < t.num_heads; h++) score_heads<1, T>(t, h, values);
  for (h = 0; h < t.num_heads; h++) exponentiate(t.scores + h * kAttendChunk, t.len, t.largest[h], t.total[h], [] {});
  h = 0;
  constexpr int64_t columns = kRuns<V> * kVec;
  RowsAhead keys(t.next_k, t.type, t.next_len, (t.num_heads + V - 1) / V * ((t.v_dim + columns - 1) / columns) * t.len);
  for (; h + V <= t.num_heads; h += V) weigh_heads<V, T>(t, h, keys);
  for (; h + V / 2 <= t.num_heads; h += V / 2) weigh_heads<V / 2, T>(t, h, keys);
  for (; h < t.num_heads; h++) weigh_heads<1, T>(t, h, keys);
}

void attend_chunk(const AttendTask& t) {
  switch (t.type) {
    case KvCacheType::f32: return attend_chunk_of<float>(t);
    case KvCacheType::f16: return attend_chunk_of<uint16_t>(t);
    case KvCacheType::q8_0: return attend_chunk_of<int8_t>(t);
  }
}

// 2^(a - largest) and 2^(b - largest), of which one is 1.
struct PowersOfTwo {
  PowersOfTwo(float a, float b) : largest(b > a ? b : a) {
    Vec x[1] = {};
    x[0][0] = a - largest, x[0][1] = b - largest;
    exp2_vecs(x);
    of_a = x[0][0], of_b = x[0][1];
  }
  float largest, of_a, of_b;
};

void merge_attended(Attended to, Attended from, int64_t v_dim) {
  const PowersOfTwo powers(*to.largest, *from.largest);
  *to.largest = powers.largest;
  *to.total = *to.total * powers.of_a + *from.total * powers.of_b;
  for (int64_t i = 0; i < v_dim; i++) to.out[i] = to.out[i] * powers.of_a + from.out[i] * powers.of_b;
}

void finish_attended(Attended a, const float* sink, int64_t v_dim, float* out) {
  float keep = 1.0f, total = *a.total;
  if (sink != nullptr) {
    const PowersOfTwo powers(*a.largest, *sink * kLog2e);
    keep = powers.of_a;
    total = total * keep + powers.of_b;
  }
  const float factor = keep / total;
  for (int64_t i = 0; i < v_dim; i++) out[i] = a.out[i] * factor;
}

}  // namespace
}  // namespace nibble
