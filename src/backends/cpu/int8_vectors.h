// What attend_int8.h needs of an instruction set, over vectors of kVec 32-bit lanes. A query or a weight of 16 bits is
// multiplied in two parts:
//   bytes   its high and its low one, by the same codes: VPDPBUSD (512 bits with VBMI; 256 in either of its encodings), SDOT
//   words   it is whole, and the parts are those of even and of odd columns, or positions: VPMADDWD (AVX2)
#pragma once

#include "backends/cpu/float_kernels.inc"

namespace nibble {
namespace {

using IntVec = int32_t __attribute__((vector_size(sizeof(Vec))));
using ByteVec = int8_t __attribute__((vector_size(sizeof(Vec))));

struct alignas(64) Line {
  uint8_t bytes[64];
};

inline ByteVec load_bytes(const uint8_t* from) {
  ByteVec bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

inline IntVec high_of(IntVec x) { return (x + 128) >> 8; }  // of two signed bytes
inline Vec to_floats(IntVec x) { return __builtin_convertvector(x, Vec); }

// Codes: four for each lane; `of` gives what a part is multiplied by.
// Fours: kFours times four bytes of a part, of which one four is multiplied by those of all lanes.
// kPartSums: 2 where parts are summed apart.
// kMostScoreHeads, kMostValueHeads: heads whose sums are in registers together: of 16 positions, and of two vectors of
// columns. Where all of a group's keys do not fit beside them, they come from the first-level cache.
// kMakesWeightsBeside: registers suffice to make weights between the products of those before.
//
// whole_sum, float_sum: of both parts; in integers where they have room for it.
// keep_order: the compiler leaves what is added to these sums before that point, and does not copy them around.
// to_integers: fractions are cut off.
// put_query, split_weights: the parts of kVec and of kBlockLen integers.
// turn_columns: of 16 positions and columns, from KvLayout::keys to values.
#if defined(__aarch64__) || defined(__AVXVNNI__) || defined(__AVX512VNNI__)
constexpr int kPartSums = 2;

struct Codes {
  ByteVec bytes;

  ByteVec of(int) const { return bytes; }
};

inline IntVec whole_sum(const IntVec (&sums)[kPartSums]) { return sums[0] * 256 + sums[1]; }
inline Vec float_sum(const IntVec (&sums)[kPartSums]) { return to_floats(sums[0]) * 256.0f + to_floats(sums[1]); }

inline void put_query(IntVec x, int8_t* high, int8_t* low) {
  using Bytes = int8_t __attribute__((vector_size(kVec)));
  const auto of_high = __builtin_convertvector(high_of(x), Bytes), of_low = __builtin_convertvector(x, Bytes);
  std::memcpy(high, &of_high, sizeof of_high);
  std::memcpy(low, &of_low, sizeof of_low);
}
#endif

#if defined(__x86_64__)
using Fours = ByteVec;
constexpr int kFours = 1;
inline Fours load_fours(const void* from) {
  return std::bit_cast<ByteVec>(load_unaligned<int32_t>(static_cast<const uint8_t*>(from)) - IntVec{});
}

inline void keep_order(IntVec& sums) {
  IntVec in_register = sums;  // GCC would keep an operand that is part of an array in memory
  asm("" : "+v"(in_register));
  sums = in_register;
}
#endif

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
// VPDPBUSD's first factor is unsigned: weights are, keys become so by 128 more.
constexpr int32_t kKeyOffset = 128;
constexpr int32_t kLargestWeight = 65535;
constexpr int kRoundings = 16;
#if defined(__AVX512VBMI__)
constexpr int kMostScoreHeads = 4, kMostValueHeads = 4;
constexpr bool kMakesWeightsBeside = true;
#elif defined(__AVX512VNNI__)
constexpr int kMostScoreHeads = 2, kMostValueHeads = 4;
constexpr bool kMakesWeightsBeside = true;
#else
constexpr int kMostScoreHeads = 2, kMostValueHeads = 2;
constexpr bool kMakesWeightsBeside = false;
#endif

inline IntVec dot(IntVec sums, ByteVec unsigned_bytes, ByteVec signed_bytes) {
#if defined(__AVX512VBMI__)
  return IntVec(_mm512_dpbusd_epi32(__m512i(sums), __m512i(unsigned_bytes), __m512i(signed_bytes)));
#elif defined(__AVX512VNNI__)
  return IntVec(_mm256_dpbusd_epi32(__m256i(sums), __m256i(unsigned_bytes), __m256i(signed_bytes)));
#else
  return IntVec(_mm256_dpbusd_avx_epi32(__m256i(sums), __m256i(unsigned_bytes), __m256i(signed_bytes)));
#endif
}

inline Codes load_keys(const uint8_t* from) { return {load_bytes(from) ^ static_cast<int8_t>(kKeyOffset)}; }
inline Codes load_values(const uint8_t* from) { return {load_bytes(from)}; }
template <int>
IntVec add_scores(IntVec sums, ByteVec keys, Fours query) {
  return dot(sums, keys, query);
}
template <int>
IntVec add_values(IntVec sums, ByteVec values, Fours weights) {
  return dot(sums, weights, values);
}

#elif defined(__AVX2__)
constexpr int32_t kKeyOffset = 0;
constexpr int32_t kLargestWeight = 32767;  // 512 of them times -128 are a sum of 32 bits
constexpr int kRoundings = 32;
constexpr int kPartSums = 1;
constexpr int kMostScoreHeads = 4, kMostValueHeads = 4;
constexpr bool kMakesWeightsBeside = false;

struct Codes {
  ByteVec even, odd;

  ByteVec of(int part) const { return part == 0 ? even : odd; }
};

inline IntVec whole_sum(const IntVec (&sums)[kPartSums]) { return sums[0]; }
inline Vec float_sum(const IntVec (&sums)[kPartSums]) { return to_floats(sums[0]); }

inline void put_query(IntVec x, int8_t* even, int8_t* odd) {
  using Words = int16_t __attribute__((vector_size(kVec)));
  const auto of_even = __builtin_convertvector(__builtin_shufflevector(x, x, 0, 2, 4, 6), Words);
  const auto of_odd = __builtin_convertvector(__builtin_shufflevector(x, x, 1, 3, 5, 7), Words);
  std::memcpy(even, &of_even, sizeof of_even);
  std::memcpy(odd, &of_odd, sizeof of_odd);
}

inline Codes load_keys(const uint8_t* from) {
  const auto bytes = __m256i(load_bytes(from));
  return {ByteVec(_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8)), ByteVec(_mm256_srai_epi16(bytes, 8))};
}
inline Codes load_values(const uint8_t* from) { return load_keys(from); }
template <int>
IntVec add_scores(IntVec sums, ByteVec keys, Fours query) {
  return sums + IntVec(_mm256_madd_epi16(__m256i(keys), __m256i(query)));
}
template <int>
IntVec add_values(IntVec sums, ByteVec values, Fours weights) {
  return add_scores<0>(sums, values, weights);
}
#endif

#if defined(__AVX512VBMI__)
inline IntVec to_integers(Vec x) { return IntVec(_mm512_cvttps_epi32(x)); }

inline void split_weights(const IntVec (&x)[4], Line& high, Line& low) {
  static constexpr Line kBytes = [] {  // of 32 integers: second bytes, then first ones
    Line order{};
    for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>(i % 32 * 4 + (i < 32 ? 1 : 0));
    return order;
  }();
  const __m512i bytes = _mm512_load_si512(kBytes.bytes);
  const __m512i first = _mm512_permutex2var_epi8(__m512i(x[0]), bytes, __m512i(x[1]));
  const __m512i second = _mm512_permutex2var_epi8(__m512i(x[2]), bytes, __m512i(x[3]));
  _mm512_store_si512(high.bytes, _mm512_shuffle_i64x2(first, second, 0x44));
  _mm512_store_si512(low.bytes, _mm512_shuffle_i64x2(first, second, 0xee));
}

inline void turn_columns(const uint8_t* keys, Line* to) {
  static constexpr Line kTurned = [] {  // 4 positions of 4 columns, in each quarter
    Line order{};
    for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>(i % 4 * 4 + i % 16 / 4);
    return order;
  }();
  const __m512i turned = _mm512_load_si512(kTurned.bytes);
  __m512i four[4];  // columns of 16 positions
  for (int i = 0; i < 4; i++) four[i] = _mm512_loadu_si512(keys + 64 * i);
  const __m512i first[2] = {_mm512_shuffle_i32x4(four[0], four[1], 0x44), _mm512_shuffle_i32x4(four[0], four[1], 0xee)};
  const __m512i second[2] = {_mm512_shuffle_i32x4(four[2], four[3], 0x44),
                             _mm512_shuffle_i32x4(four[2], four[3], 0xee)};
  for (int i = 0; i < 4; i++) {
    const __m512i columns = i % 2 == 0 ? _mm512_shuffle_i32x4(first[i / 2], second[i / 2], 0x88)
                                       : _mm512_shuffle_i32x4(first[i / 2], second[i / 2], 0xdd);
    _mm512_store_si512(to[i].bytes, _mm512_shuffle_epi8(columns, turned));
  }
}

#elif defined(__AVX2__)
inline IntVec to_integers(Vec x) { return IntVec(_mm256_cvttps_epi32(x)); }

// Of eight fours that were packed within halves.
inline void put_in_order(uint8_t* to, __m256i fours) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(fours, order));
}

inline void split_weights(const IntVec (&x)[8], Line& first, Line& second) {
  for (int i = 0; i < 2; i++) {
    const __m256i a = _mm256_packus_epi32(__m256i(x[4 * i]), __m256i(x[4 * i + 1]));
    const __m256i b = _mm256_packus_epi32(__m256i(x[4 * i + 2]), __m256i(x[4 * i + 3]));
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    const __m256i low_byte = _mm256_set1_epi16(255);
    put_in_order(first.bytes + 32 * i, _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
    put_in_order(second.bytes + 32 * i,
                 _mm256_packus_epi16(_mm256_and_si256(a, low_byte), _mm256_and_si256(b, low_byte)));
#else
    const __m256i even_first =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i c = _mm256_shuffle_epi8(a, even_first), d = _mm256_shuffle_epi8(b, even_first);
    put_in_order(first.bytes + 32 * i, _mm256_unpacklo_epi64(c, d));
    put_in_order(second.bytes + 32 * i, _mm256_unpackhi_epi64(c, d));
#endif
  }
}

inline void turn_columns(const uint8_t* keys, Line* to) {
  const __m256i turned =  // 4 positions of 4 columns, in each half
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 2; k++) {
      const auto* from = reinterpret_cast<const __m128i*>(keys + 128 * k + 16 * i);
      const __m256i columns = _mm256_loadu2_m128i(from + 4, from);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to[i].bytes + 32 * k), _mm256_shuffle_epi8(columns, turned));
    }
}

#else
// SDOT's factors are both signed, so weights have a bit less.
constexpr int32_t kKeyOffset = 0;
constexpr int32_t kLargestWeight = 127 * 256 + 127;
constexpr int kRoundings = 32;
constexpr int kMostScoreHeads = 2, kMostValueHeads = 2;  // a vector is two registers
constexpr bool kMakesWeightsBeside = false;

struct VecInts {
  int32x4_t low, high;
};
struct VecBytes {
  int8x16_t low, high;
};

using Fours = int8x16_t;
constexpr int kFours = 4;
inline Fours load_fours(const void* from) { return vld1q_s8(static_cast<const int8_t*>(from)); }

inline Codes load_keys(const uint8_t* from) { return {load_bytes(from)}; }
inline Codes load_values(const uint8_t* from) { return load_keys(from); }
template <int i>
IntVec add_scores(IntVec sums, ByteVec keys, Fours queries) {
  const auto x = std::bit_cast<VecInts>(sums);
  const auto bytes = std::bit_cast<VecBytes>(keys);
  return std::bit_cast<IntVec>(
      VecInts{vdotq_laneq_s32(x.low, bytes.low, queries, i), vdotq_laneq_s32(x.high, bytes.high, queries, i)});
}
template <int i>
IntVec add_values(IntVec sums, ByteVec values, Fours weights) {
  return add_scores<i>(sums, values, weights);
}

inline void keep_order(IntVec& sums) {
  auto halves = std::bit_cast<VecInts>(sums);
  asm volatile("" : "+w"(halves.low), "+w"(halves.high));  // or products would sink to the branch that reads them
  sums = std::bit_cast<IntVec>(halves);
}

inline IntVec to_integers(Vec x) {
  const auto halves = std::bit_cast<VecHalves>(x);
  return std::bit_cast<IntVec>(VecInts{vcvtq_s32_f32(halves.low), vcvtq_s32_f32(halves.high)});
}

inline void split_weights(const IntVec (&x)[8], Line& high, Line& low) {
  const auto short_ints = [](IntVec v) {
    const auto halves = std::bit_cast<VecInts>(v);
    return vuzp1q_s16(vreinterpretq_s16_s32(halves.low), vreinterpretq_s16_s32(halves.high));
  };
  const int16x8_t half = vdupq_n_s16(128);  // low bytes are signed
  for (int i = 0; i < 4; i++) {
    const int16x8_t a = short_ints(x[2 * i]), b = short_ints(x[2 * i + 1]);
    vst1q_s8(reinterpret_cast<int8_t*>(low.bytes + 16 * i),
             vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b)));
    vst1q_s8(reinterpret_cast<int8_t*>(high.bytes + 16 * i),
             vuzp2q_s8(vreinterpretq_s8_s16(vaddq_s16(a, half)), vreinterpretq_s8_s16(vaddq_s16(b, half))));
  }
}

inline void turn_columns(const uint8_t* keys, Line* to) {
  static constexpr uint8_t kTurned[] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const uint8x16_t turned = vld1q_u8(kTurned);  // 4 positions of 4 columns
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 4; k++) vst1q_u8(to[i].bytes + 16 * k, vqtbl1q_u8(vld1q_u8(keys + 64 * k + 16 * i), turned));
}
#endif

template <class T, size_t count>
void keep_order(T (&sums)[count]) {
  for (T& sum : sums) keep_order(sum);
}

}  // namespace
}  // namespace nibble
