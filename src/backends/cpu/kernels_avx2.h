// 256-bit vectors, 8 rows each: shared by the files that compile it for AVX2 alone (Haswell, Zen and later: pshufb decodes
// 32 nibbles, pmaddubsw multiplies 32 bytes into 16-bit sums) and with vpdpbusd, in either of its encodings.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include <immintrin.h>

#include "backends/cpu/gemm_fp4_kernel.h"
#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

#if defined(__AVXVNNI__)
constexpr bool kHasDpbusd = true;
__m256i dpbusd(__m256i sums, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(sums, a, b); }
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
constexpr bool kHasDpbusd = true;
__m256i dpbusd(__m256i sums, __m256i a, __m256i b) { return _mm256_dpbusd_epi32(sums, a, b); }
#else
constexpr bool kHasDpbusd = false;
[[maybe_unused]] __m256i dpbusd(__m256i sums, __m256i, __m256i) { return sums; }  // never called
#endif

struct Avx2 {
  static constexpr int float_tokens = 2;
  static constexpr int register_tokens = 1;
  static constexpr int blocks = 1;
  static constexpr bool multiplies_pairs = !kHasDpbusd;
  static constexpr int side_tokens(int /*blocks*/) { return 1; }
  struct Floats {
    __m256 rows0, rows8;
  };
  struct Ints {
    __m256i rows0, rows8;
  };

  static Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats broadcast(const float* value) { return {_mm256_broadcast_ss(value), _mm256_broadcast_ss(value)}; }
  static Floats load(const float* in) { return {_mm256_loadu_ps(in), _mm256_loadu_ps(in + 8)}; }
  static Floats load(const float* in, int num_rows) {
    float padded[kBlockRows] = {};
    for (int r = 0; r < num_rows; r++) padded[r] = in[r];
    return load(padded);
  }
  static void store(float* out, Floats value) {
    _mm256_storeu_ps(out, value.rows0);
    _mm256_storeu_ps(out + 8, value.rows8);
  }
  static void store(float* out, Floats value, int num_rows) {
    float padded[kBlockRows];
    float* to = num_rows == kBlockRows ? out : padded;
    store(to, value);
    if (to == padded)
      for (int r = 0; r < num_rows; r++) out[r] = padded[r];
  }
  static Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.rows0, b.rows0), _mm256_add_ps(a.rows8, b.rows8)}; }
  static Floats mul(Floats a, Floats b) { return {_mm256_mul_ps(a.rows0, b.rows0), _mm256_mul_ps(a.rows8, b.rows8)}; }
  static Floats fma(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.rows0, b.rows0, c.rows0), _mm256_fmadd_ps(a.rows8, b.rows8, c.rows8)};
  }
  static Floats to_float(Ints a) { return {_mm256_cvtepi32_ps(a.rows0), _mm256_cvtepi32_ps(a.rows8)}; }
  static Ints broadcast_int(const int32_t* value) { return {_mm256_set1_epi32(*value), _mm256_set1_epi32(*value)}; }

  static __m128i load16(const uint8_t* in) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(in)); }
  static __m128i load8(const uint8_t* in) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in)); }
  static __m256i load32(const uint8_t* in) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)); }

  static Floats load_half(const uint8_t* in) { return {_mm256_cvtph_ps(load16(in)), _mm256_cvtph_ps(load16(in + 16))}; }
  static __m256 bf16(const uint8_t* in) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(in)), 16));
  }
  static Floats load_bf16(const uint8_t* in) { return {bf16(in), bf16(in + 16)}; }
  static __m256 e8m0(const uint8_t* in) {  // code 0 is a subnormal: 2^-127
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtepu8_epi32(load8(in)), 23);
    return _mm256_castsi256_ps(_mm256_max_epu32(exponent, _mm256_set1_epi32(0x00400000)));
  }
  static Floats load_e8m0(const uint8_t* in) { return {e8m0(in), e8m0(in + 8)}; }
  static Floats load_e4m3(const uint8_t* in) {
    const __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(load16(in)), 7);
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }

  static uint32_t largest(const float* x, uint32_t mask) {
    const auto* from = reinterpret_cast<const __m256i*>(x);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
      most = _mm256_max_epu32(
          most, _mm256_and_si256(_mm256_loadu_si256(from + i), _mm256_set1_epi32(static_cast<int>(mask))));
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
  }
  static int32_t sum(const int32_t* x) {
    const auto* from = reinterpret_cast<const __m256i*>(x);
    const __m256i all = _mm256_add_epi32(_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    return _mm_cvtsi128_si32(s);
  }

  // Minus kOffset times the sums of a plane's pairs: see ActivationGroup.
  static void offset_pairs(const int8_t* plane, int16_t (&offsets)[3][2]) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(plane);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load32(bytes));
    __m256i sums = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0x4E));
    sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0xB1));
    // Each 32 bits of a half have its two sums now.
    sums = _mm256_mullo_epi16(sums, _mm256_set1_epi16(-kOffset));
    const __m128i first = _mm256_castsi256_si128(sums), second = _mm256_extracti128_si256(sums, 1);
    const __m128i all[] = {_mm_add_epi16(first, second), first, second};
    for (int i = 0; i < 3; i++) __builtin_memcpy(offsets[i], &all[i], sizeof offsets[i]);
  }

  static void store_half(uint16_t* out, Floats value, int num_columns) {
    uint16_t padded[kBlockRows];
    uint16_t* to = num_columns == kBlockRows ? out : padded;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value.rows0, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8), _mm256_cvtps_ph(value.rows8, _MM_FROUND_TO_NEAREST_INT));
    if (to == padded)
      for (int r = 0; r < num_columns; r++) out[r] = padded[r];
  }

  static __m256i broadcast4(const void* bytes) {
    int32_t word;
    __builtin_memcpy(&word, bytes, 4);
    return _mm256_set1_epi32(word);
  }

  static __m256i table(const NibbleTable& bytes) { return _mm256_broadcastsi128_si256(load16(bytes.bytes)); }

  // 32 nibbles each.
  static __m256i decode_low(__m256i codes, __m256i table) {
    return _mm256_shuffle_epi8(table, _mm256_and_si256(codes, _mm256_set1_epi8(15)));
  }
  static __m256i decode_high(__m256i codes, __m256i table) { return decode_low(_mm256_srli_epi16(codes, 4), table); }

  // Two lines, each 8 rows: 4 k of 16 rows.
  struct Codes {
    __m256i rows0, rows8;
  };
  static Codes load_line(const uint8_t* line) { return {load32(line), load32(line + 32)}; }

  // A line of 4-bit codes as signed bytes: its low nibbles, then its high ones.
  struct Nibbles {
    Codes of[2];
  };
  static Nibbles nibbles(const uint8_t* line) {
    const Codes codes = load_line(line);
    const auto high = [](__m256i bytes) { return _mm256_srli_epi16(bytes, 4); };
    return {{codes, {high(codes.rows0), high(codes.rows8)}}};
  }
  template <int i, class Layout>
  static Floats code_values(const Nibbles& nibbles) {
    const __m256i t = _mm256_sub_epi8(table(Layout::table), _mm256_set1_epi8(kOffset));
    const auto values = [&](__m256i codes) {  // of one byte in each four
      const __m256i bytes = _mm256_slli_epi32(decode_low(codes, t), 24 - i / 2 * 8);
      return _mm256_cvtepi32_ps(_mm256_srai_epi32(bytes, 24));
    };
    return {values(nibbles.of[i % 2].rows0), values(nibbles.of[i % 2].rows8)};
  }

  // A decoded group, in memory: there are registers for a quarter of it.
  struct Group {
    __m256i codes[kGroup / 4][2];
  };

  // 4 k of 16 rows in words.
  struct Words {
    Codes even, odd;
  };
  static Words words_of(Codes bytes) {
    const auto even = [](__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi16(255)); };
    const auto odd = [](__m256i v) { return _mm256_srli_epi16(v, 8); };
    return {{even(bytes.rows0), even(bytes.rows8)}, {odd(bytes.rows0), odd(bytes.rows8)}};
  }
  // A group of 8-bit codes.
  struct WordGroup {
    Words of[kGroup / 4];
  };

  template <class Layout>
  static auto decode(Lines lines) {
    if constexpr (Layout::is_nibble) {
      Group group;
      for (int i = 0; i < kGroup / 8; i++) {
        const Codes codes = load_line(lines.line(i));
        const __m256i t = table(Layout::table);
        group.codes[2 * i][0] = decode_low(codes.rows0, t);
        group.codes[2 * i][1] = decode_low(codes.rows8, t);
        group.codes[2 * i + 1][0] = decode_high(codes.rows0, t);
        group.codes[2 * i + 1][1] = decode_high(codes.rows8, t);
      }
      return group;
    } else if constexpr (multiplies_pairs) {
      WordGroup group;
      for (int i = 0; i < kGroup / 4; i++) group.of[i] = words_of(load_line(lines.line(i)));
      return group;
    } else {
      return lines;
    }
  }

  // Calls each(k, codes) for the k = first, first + 4 … of a dot.
  template <class Layout, int first, class Each>
  static void for_codes(const Group& group, const Each& each) {
    for (int k = first; k < first + Layout::dot_k; k += 4) each(k, Codes{group.codes[k / 4][0], group.codes[k / 4][1]});
  }
  template <class Layout, int first, class LinesOf, class Each>
  static void for_codes(const LinesOf& lines, const Each& each) {
    for (int k = first; k < first + Layout::dot_k; k += Layout::line_k) {
      const Codes codes = load_line(lines.line(k / Layout::line_k));
      if constexpr (Layout::is_nibble) {
        const __m256i t = table(Layout::table);
        each(k, Codes{decode_low(codes.rows0, t), decode_low(codes.rows8, t)});
        each(k + 4, Codes{decode_high(codes.rows0, t), decode_high(codes.rows8, t)});
      } else {
        each(k, codes);
      }
    }
  }

  // Calls each(k, words) for the k = first, first + 4 … of a dot of 8-bit codes.
  template <int first, int dot_k, class Each>
  static void for_words(const WordGroup& group, const Each& each) {
    for (int k = first; k < first + dot_k; k += 4) each(k, group.of[k / 4]);
  }
  template <int first, int dot_k, class LinesOf, class Each>
  static void for_words(const LinesOf& lines, const Each& each) {
    for (int k = first; k < first + dot_k; k += 4) each(k, words_of(load_line(lines.line(k / 4))));
  }

  // What takes the codes' offset out of sums, from what takes out kOffset.
  static Ints start(int32_t offset, int code_offset) {
    const __m256i all = _mm256_set1_epi32(offset * (code_offset / kOffset));
    return {all, all};
  }

  // 4-bit codes: sums of pairs in 16 bits. A decoded byte is at most 31, so that a product of pairs is at most
  // 2 * 31 * 127 = 7874. The sum of all 16 in a lane may wrap around, but the offsets bring it back: without kOffset in
  // the codes it is at most 16 * 15 * 127 = 30480.
  template <class Layout, int first, int num_planes, class From>
  static Ints dot_nibbles(const From& group, const ActivationGroup& x) {
    constexpr int part = Layout::dot_k == kGroup ? 0 : 1 + first / 16;
    Ints high, low;
    high.rows0 = high.rows8 = broadcast4(x.high_offsets[part]);
    low.rows0 = low.rows8 = broadcast4(x.low_offsets[part]);
    for_codes<Layout, first>(group, [&](int k, Codes w) {
      const __m256i h = broadcast4(x.high + k), l = broadcast4(x.low + k);
      high.rows0 = _mm256_add_epi16(high.rows0, _mm256_maddubs_epi16(w.rows0, h));
      high.rows8 = _mm256_add_epi16(high.rows8, _mm256_maddubs_epi16(w.rows8, h));
      if constexpr (num_planes == 2) {
        low.rows0 = _mm256_add_epi16(low.rows0, _mm256_maddubs_epi16(w.rows0, l));
        low.rows8 = _mm256_add_epi16(low.rows8, _mm256_maddubs_epi16(w.rows8, l));
      }
      // Keeps the additions in this order: reassociated they need more registers than there are (5 % of M = 1 on Zen 4).
      asm("" : "+x"(high.rows0), "+x"(high.rows8), "+x"(low.rows0), "+x"(low.rows8));
    });
    const auto sum = [](__m256i h, __m256i l) {
      const __m256i high_sums = _mm256_madd_epi16(h, _mm256_set1_epi16(128));
      if constexpr (num_planes == 1) return high_sums;
      return _mm256_add_epi32(high_sums, _mm256_madd_epi16(l, _mm256_set1_epi16(1)));
    };
    return {sum(high.rows0, low.rows0), sum(high.rows8, low.rows8)};
  }

  // 8-bit codes, plus 128, as words, times words of q.
  template <class Layout, int first, class From>
  static Ints dot_words(const From& group, const ActivationGroup& x) {
    Ints sums = start(Layout::dot_k == kGroup ? x.offset : x.half_offset[first / 16], Layout::code_offset);
    const uint8_t* const words = x.words();
    for_words<first, Layout::dot_k>(group, [&](int k, Words w) {
      const __m256i even = broadcast4(words + 2 * k), odd = broadcast4(words + 2 * k + 4);
      const auto add = [](__m256i& sum, __m256i codes, __m256i q) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(codes, q));
      };
      add(sums.rows0, w.even.rows0, even);
      add(sums.rows8, w.even.rows8, even);
      add(sums.rows0, w.odd.rows0, odd);
      add(sums.rows8, w.odd.rows8, odd);
    });
    return sums;
  }

  // Any unsigned codes, each four of which one instruction adds to the sums.
  template <class Layout, int first, int num_planes, class From>
  static Ints dot_fours(const From& group, const ActivationGroup& x) {
    Ints high{_mm256_setzero_si256(), _mm256_setzero_si256()};
    Ints low = start(Layout::dot_k == kGroup ? x.offset : x.half_offset[first / 16], Layout::code_offset);
    for_codes<Layout, first>(group, [&](int k, Codes w) {
      const __m256i h = broadcast4(x.high + k), l = broadcast4(x.low + k);
      high = {dpbusd(high.rows0, w.rows0, h), dpbusd(high.rows8, w.rows8, h)};
      if constexpr (num_planes == 2) low = {dpbusd(low.rows0, w.rows0, l), dpbusd(low.rows8, w.rows8, l)};
    });
    return {_mm256_add_epi32(_mm256_slli_epi32(high.rows0, 7), low.rows0),
            _mm256_add_epi32(_mm256_slli_epi32(high.rows8, 7), low.rows8)};
  }

  template <class Layout, int first, int num_planes, class From>
  static Ints dot(const From& group, const ActivationGroup& x) {
    if constexpr (kHasDpbusd) {
      return dot_fours<Layout, first, num_planes>(group, x);
    } else if constexpr (Layout::is_nibble) {
      return dot_nibbles<Layout, first, num_planes>(group, x);
    } else {
      return dot_words<Layout, first>(group, x);
    }
  }
};

uint64_t read(const uint8_t* bytes, int64_t size) {
  __m256i sums[8] = {};
  for (int64_t i = 0; i < size; i += 8 * 32) {
    for (int j = 0; j < 4; j++) prefetch_read(bytes + i + j * kLineBytes);
    for (int j = 0; j < 8; j++) sums[j] = _mm256_xor_si256(sums[j], Avx2::load32(bytes + i + j * 32));
  }
  for (int j = 1; j < 8; j++) sums[0] = _mm256_xor_si256(sums[0], sums[j]);
  uint64_t lanes[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}

}  // namespace
}  // namespace nibble
