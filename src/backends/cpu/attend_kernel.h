// Attention over one chunk of cached positions, for query heads that share a key and value head: written once over the
// vectors of an instruction set. float_kernels.inc includes it, so it follows the rules told there.
//
// Cost    a chunk's keys and values are read from memory once for all heads of the call. With 8 heads or more the
//         multiply-adds are the bound, not memory: 2 * heads of them for each value read.
// Scores  kVec of them at a time, heads × positions: kVec chains of multiply-adds, then their lanes are summed pairwise,
//         all kVec vectors together, in 2 * kVec shuffles.
// Values  heads × runs of kVec columns stay in registers while the positions of the chunk go by.
// Sums    a score is one chain over the head's columns and one tree over its lanes, a value one chain over the chunk's
//         positions: which heads and columns go together changes nothing.
#pragma once

#include "backends/cpu/float_kernels.h"

namespace nibble {
namespace {

#if defined(__AVX512F__)
constexpr int kVec = 16;
constexpr int kValueHeads = 4, kValueRuns = 4;  // 16 of 32 registers hold sums
#elif defined(__AVX2__)
constexpr int kVec = 8;
constexpr int kValueHeads = 4, kValueRuns = 2;  // 8 of 16
#elif defined(__aarch64__)
constexpr int kVec = 8;                         // two registers: 4 at a time would load 5 for 4 multiply-adds
constexpr int kValueHeads = 4, kValueRuns = 2;  // 16 of 32
#else
constexpr int kVec = 4;
constexpr int kValueHeads = 2, kValueRuns = 2;
#endif
using Vec = float __attribute__((vector_size(kVec * sizeof(float)), aligned(sizeof(float))));

#if defined(__AVX512F__)
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec load_vec(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
#elif defined(__AVX2__)
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
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
inline Vec load_vec(const uint16_t* from) {
  const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(from));
  return std::bit_cast<Vec>(VecHalves{vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)});
}
#else
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
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

// Sums of neighbouring lanes: those of a, then those of b.
inline Vec add_pairs(Vec a, Vec b) {
#if defined(__AVX512F__)
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

// Bytes from a row to the one that is asked for now; the chunk's rows follow each other but for one jump.
constexpr int64_t kRowsAheadBytes = 4096;

template <class T>
const T* row_of(const KvRun& run, int64_t i) {
  const int64_t row = run.first_row + i;
  return reinterpret_cast<const T*>(run.data + (row < run.num_rows ? row : row - run.num_rows) * run.row_bytes);
}

template <class T>
void prefetch_row(const T* row, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64)
    __builtin_prefetch(reinterpret_cast<const uint8_t*>(row) + kRowsAheadBytes + b, 0, 3);
}

// Scores of H heads from head `h` on.
template <int H, class T>
void score_heads(const AttendTask& t, int h) {
  constexpr int P = kVec / H;  // positions at a time
  const float* q[H];
  for (int i = 0; i < H; i++) q[i] = t.q + (h + i) * t.q_stride;
  for (int64_t p = 0; p < t.len; p += P) {
    const T* k[P];
    for (int j = 0; j < P; j++) k[j] = row_of<T>(t.k, p + j < t.len ? p + j : t.len - 1);
    if (h == 0)
      for (int j = 0; j < P; j++) prefetch_row(k[j], t.head_dim * static_cast<int64_t>(sizeof(T)));
    Vec sums[kVec] = {};
    int64_t d = 0;
    for (; d + kVec <= t.head_dim; d += kVec) {
      Vec key[P];
      for (int j = 0; j < P; j++) key[j] = load_vec(k[j] + d);
      for (int i = 0; i < H; i++) {
        const Vec query = load_vec(q[i] + d);
        for (int j = 0; j < P; j++) sums[i * P + j] = fma(key[j], query, sums[i * P + j]);
      }
    }
    if (d < t.head_dim) {
      for (int j = 0; j < P; j++) {
        const Vec key = load_vec(k[j] + d, t.head_dim - d);
        for (int i = 0; i < H; i++) sums[i * P + j] = fma(key, load_vec(q[i] + d, t.head_dim - d), sums[i * P + j]);
      }
    }
    float scores[kVec];
    const Vec scaled = sums_of_all(sums) * t.scale;
    std::memcpy(scores, &scaled, sizeof scores);
    for (int i = 0; i < H; i++) {  // whole ones: the rows of scores have room for them
      std::memcpy(t.scores + (h + i) * kAttendChunk + p, scores + i * P, P * sizeof(float));
    }
  }
}

// scores[p] = e^(scores[p] - the largest); returns that and their sum.
inline void exponentiate(float* scores, int64_t len, float& largest, float& total) {
  float top[kLanes];
  for (float& x : top) x = -INFINITY;
  int64_t p = 0;
  for (; p + kLanes <= len; p += kLanes)
    for (int i = 0; i < kLanes; i++) top[i] = scores[p + i] > top[i] ? scores[p + i] : top[i];
  for (int i = 0; p + i < len; i++) top[i] = scores[p + i] > top[i] ? scores[p + i] : top[i];
  largest = top[0];
  for (float x : top) largest = x > largest ? x : largest;
  float totals[kLanes] = {};
  for (p = 0; p + kLanes <= len; p += kLanes)
    for (int i = 0; i < kLanes; i++) totals[i] += scores[p + i] = exp_float(scores[p + i] - largest);
  for (int i = 0; p + i < len; i++) totals[i] += scores[p + i] = exp_float(scores[p + i] - largest);
  total = sum_of(totals);
}

// out[h] = the sum over the positions of scores[h] times value, for H heads from `h` on and R runs of columns from `d`
// on, of which the last has `last_count` columns.
template <int H, int R, class T>
void weigh_values(const AttendTask& t, int h, int64_t d, int64_t last_count) {
  Vec sums[H][R] = {};
  for (int64_t p = 0; p < t.len; p++) {
    const T* v = row_of<T>(t.v, p) + d;
    if (h == 0) prefetch_row(v, R * kVec * static_cast<int64_t>(sizeof(T)));
    Vec value[R];
    for (int r = 0; r + 1 < R; r++) value[r] = load_vec(v + r * kVec);
    value[R - 1] = load_vec(v + (R - 1) * kVec, last_count);
    for (int i = 0; i < H; i++) {
      const Vec weight = t.scores[(h + i) * kAttendChunk + p] - Vec{};
      for (int r = 0; r < R; r++) sums[i][r] = fma(value[r], weight, sums[i][r]);
    }
  }
  for (int i = 0; i < H; i++) {
    float* out = t.out + (h + i) * t.v_dim + d;
    std::memcpy(out, sums[i], (R - 1) * sizeof(Vec) + static_cast<size_t>(last_count) * sizeof(float));
  }
}

template <int H, class T>
void weigh_heads(const AttendTask& t, int h) {
  int64_t d = 0;
  for (; d + kValueRuns * kVec <= t.v_dim; d += kValueRuns * kVec) weigh_values<H, kValueRuns, T>(t, h, d, kVec);
  for (; d < t.v_dim; d += kVec) weigh_values<H, 1, T>(t, h, d, t.v_dim - d < kVec ? t.v_dim - d : kVec);
}

template <class T>
void attend_chunk_of(const AttendTask& t) {
  int h = 0;
  for (; h + 4 <= t.num_heads; h += 4) score_heads<4, T>(t, h);
  for (; h + 2 <= t.num_heads; h += 2) score_heads<2, T>(t, h);
  for (; h < t.num_heads; h++) score_heads<1, T>(t, h);
  for (h = 0; h < t.num_heads; h++) exponentiate(t.scores + h * kAttendChunk, t.len, t.largest[h], t.total[h]);
  h = 0;
  for (; h + kValueHeads <= t.num_heads; h += kValueHeads) weigh_heads<kValueHeads, T>(t, h);
  for (; h < t.num_heads; h++) weigh_heads<1, T>(t, h);
}

void attend_chunk(const AttendTask& t) {
  if (t.type == KvCacheType::f32) {
    attend_chunk_of<float>(t);
  } else {
    attend_chunk_of<uint16_t>(t);
  }
}

void merge_attended(Attended to, Attended from, int64_t v_dim) {
  const float largest = *from.largest > *to.largest ? *from.largest : *to.largest;
  const float keep = exp_float(*to.largest - largest), add = exp_float(*from.largest - largest);
  *to.largest = largest;
  *to.total = *to.total * keep + *from.total * add;
  for (int64_t i = 0; i < v_dim; i++) to.out[i] = to.out[i] * keep + from.out[i] * add;
}

void finish_attended(Attended a, const float* sink, int64_t v_dim, float* out) {
  float keep = 1.0f, total = *a.total;
  if (sink != nullptr) {
    const float largest = *sink > *a.largest ? *sink : *a.largest;
    keep = exp_float(*a.largest - largest);
    total = total * keep + exp_float(*sink - largest);
  }
  const float factor = keep / total;
  for (int64_t i = 0; i < v_dim; i++) out[i] = a.out[i] * factor;
}

}  // namespace
}  // namespace nibble
