// AVX-512 with VNNI and VBMI (Ice Lake, Zen 4 and later): one vpermb decodes 64 nibbles, one vpdpbusd multiplies 64
// bytes with 4 activations taken from memory. Shared by the files that compile it with these alone and with AMX.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include <immintrin.h>

#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

struct Avx512 {
  static constexpr int float_tokens = 8;
  static constexpr int register_tokens = 4;
  static constexpr int blocks = 2;
  static constexpr int side_tokens(int num_blocks) { return num_blocks; }
  static constexpr bool multiplies_pairs = false;
  static bool in_halves(bool is_nibble) { return kDoublePumps512 && is_nibble; }
  using Floats = __m512;
  using Ints = __m512i;

  static __mmask16 rows(int num_rows) { return static_cast<__mmask16>((1u << num_rows) - 1); }

  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats broadcast(const float* value) { return _mm512_set1_ps(*value); }
  static Floats load(const float* in) { return _mm512_loadu_ps(in); }
  static Floats load(const float* in, int num_rows) { return _mm512_maskz_loadu_ps(rows(num_rows), in); }
  static void store(float* out, Floats value) { _mm512_storeu_ps(out, value); }
  static void store(float* out, Floats value, int num_rows) { _mm512_mask_storeu_ps(out, rows(num_rows), value); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats to_float(Ints a) { return _mm512_cvtepi32_ps(a); }
  static Ints broadcast_int(const int32_t* value) { return _mm512_set1_epi32(*value); }

  static __m128i load16(const uint8_t* in) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(in)); }
  static __m256i load32(const uint8_t* in) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)); }

  static Floats load_half(const uint8_t* in) { return _mm512_cvtph_ps(load32(in)); }
  static Floats load_bf16(const uint8_t* in) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load32(in)), 16));
  }
  static Floats load_e8m0(const uint8_t* in) {  // code 0 is a subnormal: 2^-127
    const __m512i exponent = _mm512_slli_epi32(_mm512_cvtepu8_epi32(load16(in)), 23);
    return _mm512_castsi512_ps(_mm512_max_epu32(exponent, _mm512_set1_epi32(0x00400000)));
  }
  static Floats load_e4m3(const uint8_t* in) {
    return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(load16(in)), 7));
  }
  static uint32_t largest(const float* x, uint32_t mask) {
    const __m512i masks = _mm512_set1_epi32(static_cast<int>(mask));
    const __m512i first = _mm512_and_si512(_mm512_loadu_si512(x), masks);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(first, _mm512_and_si512(_mm512_loadu_si512(x + 16), masks)));
  }
  static int32_t sum(const int32_t* x) { return _mm512_reduce_add_epi32(_mm512_loadu_si512(x)); }

  // What op gives of the 16 lanes of each.
  static __m128i reduce_each(const __m512i (&v)[4], const auto& op) {
    const __m512i a = op(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i b = op(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    // Each four lanes are of the four.
    const __m512i c = op(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m512i d = op(c, _mm512_shuffle_i64x2(c, c, 0x4E));
    return _mm512_castsi512_si128(op(d, _mm512_shuffle_i64x2(d, d, 0xB1)));
  }

  // quantize_group of up to four groups: their reductions share instructions.
  static constexpr int groups_at_once = 4;
  static void quantize_some(const float* x, int count, int bits, ActivationGroup* out, int64_t stride) {
    __m512 values[4][2] = {};
    __m512i magnitudes[4] = {}, sums[2][4];
    for (int g = 0; g < 4; g++) {
      if (g >= count) break;
      const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
      for (int i = 0; i < 2; i++) values[g][i] = load(x + g * kGroup + 16 * i);
      magnitudes[g] = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(values[g][0]), mask),
                                       _mm512_and_si512(_mm512_castps_si512(values[g][1]), mask));
    }
    const __m128i largest_bits = reduce_each(magnitudes, [](__m512i a, __m512i b) { return _mm512_max_epu32(a, b); });
    const __m128 largest = _mm_max_ps(_mm_castsi128_ps(largest_bits), _mm_set1_ps(kSmallestLargest));
    const __m128 inverse = _mm_div_ps(_mm_set1_ps(bits == kActivationBits ? kLargestActivation : 127), largest);
    const __m128 scale = _mm_div_ps(largest, _mm_set1_ps(kLargestActivation));
    // q + 64 + 2^14 is positive: its low 7 bits are those of the low plane, plus 64, the others those of the high one, plus 128.
    constexpr int kBias = 64 + 16384;
    const __m128i unused_bits = _mm_cvtsi32_si128(kActivationBits - bits);
    const __m512i plane_bias = _mm512_inserti64x4(_mm512_set1_epi8(-128), _mm256_set1_epi8(64), 1);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int g = 0; g < 4; g++) {
      const __m512 by = _mm512_permutexvar_ps(_mm512_set1_epi32(g), _mm512_castps128_ps512(inverse));
      for (int i = 0; i < 2; i++) {
        const __m512 rounded = _mm512_fmadd_ps(values[g][i], by, _mm512_set1_ps(0x1.8p23f));
        const __m512i q = _mm512_sub_epi32(_mm512_castps_si512(rounded), _mm512_set1_epi32(0x4B400000));
        sums[i][g] = _mm512_add_epi32(_mm512_sll_epi32(q, unused_bits), _mm512_set1_epi32(kBias));
      }
      const __m512i biased = _mm512_packus_epi32(sums[0][g], sums[1][g]);
      const __m512i high = _mm512_srli_epi16(biased, 7), low = _mm512_and_si512(biased, _mm512_set1_epi16(127));
      const __m512i planes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(high, low));
      if (g < count) _mm512_storeu_si512(out[g * stride].high, _mm512_sub_epi8(planes, plane_bias));
    }
    const auto offsets = [&](const __m512i(&of_half)[4]) {
      const __m128i sum = reduce_each(of_half, [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); });
      return _mm_mullo_epi32(_mm_sub_epi32(sum, _mm_set1_epi32(16 * kBias)), _mm_set1_epi32(-kOffset));
    };
    const __m128i first = offsets(sums[0]), second = offsets(sums[1]);
    __m128 rows[4] = {scale, _mm_castsi128_ps(_mm_add_epi32(first, second)), _mm_castsi128_ps(first),
                      _mm_castsi128_ps(second)};
    _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
    for (int g = 0; g < 4; g++)
      if (g < count) _mm_storeu_ps(&out[g * stride].scale, rows[g]);
    const __mmask8 not_finite = _mm_cmp_epu32_mask(largest_bits, _mm_set1_epi32(kInfinityBits), _MM_CMPINT_NLT);
    if (not_finite != 0)
      for (int g = 0; g < count; g++)
        if ((not_finite >> g & 1) != 0) out[g * stride] = {.scale = __builtin_nanf("")};
  }

  static void store_half(uint16_t* out, Floats value, int num_columns) {
    _mm256_mask_storeu_epi16(out, rows(num_columns), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }

  static __m512i broadcast4(const int8_t* bytes) {
    int32_t word;
    __builtin_memcpy(&word, bytes, 4);
    return _mm512_set1_epi32(word);
  }

  static __m512i table(const NibbleTable& bytes) { return _mm512_broadcast_i32x4(load16(bytes.bytes)); }

  // 64 nibbles each; the index has 6 bits, and the table repeats every 16.
  static __m512i decode_low(__m512i codes, __m512i table) { return _mm512_permutexvar_epi8(codes, table); }
  static __m512i decode_high(__m512i codes, __m512i table) {
    return _mm512_permutexvar_epi8(_mm512_srli_epi32(codes, 4), table);
  }

  // vpermps looks at the lowest 4 bits of each lane.
  static __m512i nibbles(const uint8_t* line) { return _mm512_loadu_si512(line); }
  template <int i, class Layout>
  static Floats code_values(__m512i nibbles) {
    const __m512i bytes = _mm512_cvtepu8_epi32(load16(Layout::table.bytes));
    const __m512 values = _mm512_cvtepi32_ps(_mm512_sub_epi32(bytes, _mm512_set1_epi32(kOffset)));
    return _mm512_permutexvar_ps(_mm512_srli_epi32(nibbles, 4 * i), values);
  }

  // 64 bytes each: 4 k of 16 rows.
  struct Group {
    __m512i codes[kGroup / 4];
  };

  // Of one line.
  template <class Layout>
  static void decode_line(const uint8_t* line, __m512i (&codes)[Layout::line_k / 4]) {
    codes[0] = _mm512_loadu_si512(line);
    if constexpr (Layout::is_nibble) {
      codes[1] = decode_high(codes[0], table(Layout::table));
      codes[0] = decode_low(codes[0], table(Layout::table));
    }
  }

  template <class Layout>
  static Group decode(Lines lines) {
    constexpr int fours = Layout::line_k / 4;
    Group group;
    for (int i = 0; i < kGroup / Layout::line_k; i++) {
      __m512i codes[fours];
      decode_line<Layout>(lines.line(i), codes);
      for (int j = 0; j < fours; j++) group.codes[fours * i + j] = codes[j];
    }
    return group;
  }

  // Of the low plane, what takes the codes' offset out.
  template <class Layout, int first>
  static __m512i low_start(const ActivationGroup& x) {
    const __m512i start = _mm512_set1_epi32(Layout::dot_k == kGroup ? x.offset : x.half_offset[first / 16]);
    return Layout::code_offset == 8 * kOffset ? _mm512_slli_epi32(start, 3) : start;
  }
  static Ints join_planes(__m512i high, __m512i low) { return _mm512_add_epi32(_mm512_slli_epi32(high, 7), low); }

  // Each four of activations is broadcast once for all blocks, and each four k are multiplied for all tokens before the next:
  // the fewer instructions that wait for each other stand in a row, the more of them a processor has at once.
  template <class Layout, int first, int num_planes, int blocks, int tokens>
  static void dot_side_by_side(const Group (&groups)[blocks], const ActivationGroup* x, Ints (&sums)[blocks][tokens]) {
    __m512i high[blocks][tokens] = {}, low[blocks][tokens];
    for (int b = 0; b < blocks; b++)
      for (int t = 0; t < tokens; t++) low[b][t] = low_start<Layout, first>(x[t]);
    for (int k = first; k < first + Layout::dot_k; k += 4)
      for (int t = 0; t < tokens; t++) {
        const __m512i x_high = broadcast4(x[t].high + k), x_low = broadcast4(x[t].low + k);
        for (int b = 0; b < blocks; b++) {
          const __m512i codes = groups[b].codes[k / 4];
          high[b][t] = _mm512_dpbusd_epi32(high[b][t], codes, x_high);
          if constexpr (num_planes == 2) low[b][t] = _mm512_dpbusd_epi32(low[b][t], codes, x_low);
        }
      }
    for (int b = 0; b < blocks; b++)
      for (int t = 0; t < tokens; t++) sums[b][t] = join_planes(high[b][t], low[b][t]);
  }

  template <class Layout, int first, int num_planes>
  static Ints dot(const Group& group, const ActivationGroup& x) {
    Ints sums[1][1];
    dot_side_by_side<Layout, first, num_planes>({group}, &x, sums);
    return sums[0][0];
  }

  // The same, eight rows and then the other eight, in vectors of 256 bits. Where wider ones are computed in halves anyway, memory is
  // kept busier so (docs/performance.md).
  template <class Layout, int first, int num_planes, class LinesOf>
  static Ints dot_halves(const LinesOf& lines, const ActivationGroup& x) {
    const auto broadcast = [](const int8_t* bytes) { return _mm512_castsi512_si256(broadcast4(bytes)); };
    const __m256i table = _mm256_broadcastsi128_si256(load16(Layout::table.bytes));
    __m256i high[2] = {}, low[2];
    for (__m256i& sum : low) sum = _mm512_castsi512_si256(low_start<Layout, first>(x));
    for (int k = first; k < first + Layout::dot_k; k += Layout::line_k) {
      const uint8_t* line = lines.line(k / Layout::line_k);
      for (int half = 0; half < 2; half++) {
        __m256i codes[Layout::line_k / 4] = {load32(line + 32 * half)};
        if constexpr (Layout::is_nibble) {
          codes[1] = _mm256_permutexvar_epi8(_mm256_srli_epi32(codes[0], 4), table);
          codes[0] = _mm256_permutexvar_epi8(codes[0], table);
        }
        for (int i = 0; i < Layout::line_k; i += 4) {
          high[half] = _mm256_dpbusd_epi32(high[half], codes[i / 4], broadcast(x.high + k + i));
          if constexpr (num_planes == 2)
            low[half] = _mm256_dpbusd_epi32(low[half], codes[i / 4], broadcast(x.low + k + i));
        }
      }
    }
    for (int half = 0; half < 2; half++) low[half] = _mm256_add_epi32(_mm256_slli_epi32(high[half], 7), low[half]);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low[0]), low[1], 1);
  }

  // 32 k are two chains of products in each plane, so that fewer of them wait for each other.
  template <class Layout, int first, int num_planes, class LinesOf>
  static Ints dot(const LinesOf& lines, const ActivationGroup& x) {
    if constexpr (LinesOf::kInHalves) return dot_halves<Layout, first, num_planes>(lines, x);
    constexpr int chains = Layout::dot_k / 16;
    __m512i high[chains] = {}, low[chains] = {low_start<Layout, first>(x)};
    for (int k = first; k < first + Layout::dot_k; k += Layout::line_k) {
      __m512i codes[Layout::line_k / 4];
      decode_line<Layout>(lines.line(k / Layout::line_k), codes);
      for (int i = 0; i < Layout::line_k; i += 4) {
        const int chain = (k + i) / 4 % chains;
        high[chain] = _mm512_dpbusd_epi32(high[chain], codes[i / 4], broadcast4(x.high + k + i));
        if constexpr (num_planes == 2)
          low[chain] = _mm512_dpbusd_epi32(low[chain], codes[i / 4], broadcast4(x.low + k + i));
      }
    }
    for (int i = 1; i < chains; i++) {
      high[0] = _mm512_add_epi32(high[0], high[i]);
      low[0] = _mm512_add_epi32(low[0], low[i]);
    }
    return join_planes(high[0], low[0]);
  }
};

}  // namespace
}  // namespace nibble
