// AVX2 with FMA and F16C (Haswell, Zen and later): 8 rows at a time. pshufb decodes 32 nibbles, pmaddubsw multiplies 32
// bytes into 16-bit sums.
#include <immintrin.h>

#include "backends/cpu/gemm_fp4_kernel.h"
#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

struct Avx2 {
  static constexpr int max_tokens = 4;
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
  static void store(float* out, Floats value, int num_rows) {
    float padded[kBlockRows];
    float* to = num_rows == kBlockRows ? out : padded;
    _mm256_storeu_ps(to, value.rows0);
    _mm256_storeu_ps(to + 8, value.rows8);
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

  static void store_half(uint16_t* out, Floats value, int num_columns) {
    uint16_t padded[kBlockRows];
    uint16_t* to = num_columns == kBlockRows ? out : padded;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value.rows0, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8), _mm256_cvtps_ph(value.rows8, _MM_FROUND_TO_NEAREST_INT));
    if (to == padded)
      for (int r = 0; r < num_columns; r++) out[r] = padded[r];
  }

  static __m256i broadcast4(const int8_t* bytes) {
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

  static void decode_group(const uint8_t* lines, int64_t line_stride, uint8_t* out) {
    for (int i = 0; i < 8; i++) {
      const __m256i codes = load32(lines + i / 2 * line_stride + i % 2 * 32);
      uint8_t* to = out + i / 2 * 2 * kLineBytes + i % 2 * 32;
      _mm256_store_si256(reinterpret_cast<__m256i*>(to), decode_low(codes, table(GemmLayout::table)));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + kLineBytes), decode_high(codes, table(GemmLayout::table)));
    }
  }

  // 8 rows of 4-bit codes, decoded or not. 16-bit sums stay exact: a decoded byte is at most 31, so a pair adds at most
  // 2 * 31 * 127 = 7874 in the high plane, which is emptied after 4 additions, and 2 * 31 * 64 = 3968 in the low one,
  // emptied after 8.
  template <class Layout, int first, int T>
  static void dot_nibbles(const uint8_t* lines, int64_t line_stride, const ActivationGroup* x, __m256i (&sums)[T]) {
    __m256i low[T];
    for (int t = 0; t < T; t++) {
      sums[t] = _mm256_set1_epi32(Layout::dot_k == kGroup ? x[t].offset : x[t].half_offset[first / 16]);
      low[t] = _mm256_setzero_si256();
    }
    for (int i = 0; i < Layout::dot_k / 8; i += 2) {
      __m256i high[T];
      for (int t = 0; t < T; t++) high[t] = _mm256_setzero_si256();
      for (int j = i; j < i + 2; j++) {
        __m256i w0, w4;
        if constexpr (Layout::is_nibble) {
          const __m256i codes = load32(lines + j * line_stride);
          w0 = decode_low(codes, table(Layout::table));
          w4 = decode_high(codes, table(Layout::table));
        } else {
          w0 = load32(lines + 2 * j * line_stride);
          w4 = load32(lines + (2 * j + 1) * line_stride);
        }
        for (int t = 0; t < T; t++) {
          const int8_t* h = x[t].high + first + 8 * j;
          const int8_t* l = x[t].low + first + 8 * j;
          high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(w0, broadcast4(h)));
          high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(w4, broadcast4(h + 4)));
          low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(w0, broadcast4(l)));
          low[t] = _mm256_add_epi16(low[t], _mm256_maddubs_epi16(w4, broadcast4(l + 4)));
        }
      }
      for (int t = 0; t < T; t++)
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(high[t], _mm256_set1_epi16(128)));
    }
    for (int t = 0; t < T; t++) sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(low[t], _mm256_set1_epi16(1)));
  }

  // 8 rows of 8-bit codes, as magnitude times signed activation: a pair is at most 2 * 128 * 127 = 32512.
  template <class Layout, int T>
  static void dot_bytes(const uint8_t* lines, int64_t line_stride, const ActivationGroup* x, __m256i (&sums)[T]) {
    for (int t = 0; t < T; t++) sums[t] = _mm256_setzero_si256();
    for (int i = 0; i < kGroup / 4; i++) {
      const __m256i w = _mm256_xor_si256(load32(lines + i * line_stride), _mm256_set1_epi8(-128));
      const __m256i magnitude = _mm256_abs_epi8(w);
      for (int t = 0; t < T; t++) {
        const __m256i high = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast4(x[t].high + 4 * i), w));
        const __m256i low = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(broadcast4(x[t].low + 4 * i), w));
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(high, _mm256_set1_epi16(128)));
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
      }
    }
  }

  template <class Layout, int first, int T>
  static void dot(const uint8_t* lines, int64_t line_stride, const ActivationGroup* x, Ints (&sums)[T]) {
    __m256i rows0[T], rows8[T];
    if constexpr (Layout::code_offset == kOffset) {
      dot_nibbles<Layout, first, T>(lines, line_stride, x, rows0);
      dot_nibbles<Layout, first, T>(lines + kLineBytes / 2, line_stride, x, rows8);
    } else {
      dot_bytes<Layout, T>(lines, line_stride, x, rows0);
      dot_bytes<Layout, T>(lines + kLineBytes / 2, line_stride, x, rows8);
    }
    for (int t = 0; t < T; t++) sums[t] = {rows0[t], rows8[t]};
  }
};

uint64_t read(const uint8_t* bytes, int64_t size) {
  __m256i sums[8] = {};
  for (int64_t i = 0; i < size; i += 8 * 32) {
    for (int j = 0; j < 4; j++) __builtin_prefetch(bytes + i + j * kLineBytes + kNear);
    for (int j = 0; j < 8; j++) sums[j] = _mm256_xor_si256(sums[j], Avx2::load32(bytes + i + j * 32));
  }
  for (int j = 1; j < 8; j++) sums[0] = _mm256_xor_si256(sums[0], sums[j]);
  uint64_t lanes[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}

}  // namespace

extern const CpuKernels kAvx2Kernels;
constinit const CpuKernels kAvx2Kernels = {
    .name = "avx2", .prepare = prepare<Avx2>, .linear = linear<Avx2>, .gemm_fp4 = gemm_fp4_strip<Avx2>, .read = read};

}  // namespace nibble
