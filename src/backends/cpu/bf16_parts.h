// Numbers as sums of two bfloat16, a high and a low one, for tiles that multiply those: of a float's 24 bits they keep 16 or more.
// For files compiled for AVX-512 that follow the rules of linear_kernel.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nibble {
namespace {

// 32 numbers.
struct Parts {
  __m512i high, low;
};

struct alignas(64) Words {
  uint16_t at[32];
  __m512i vec() const { return _mm512_load_si512(at); }
};

// The high halves of a's 16 lanes, then of b's.
__m512i high_words(__m512i a, __m512i b) {
  static constexpr Words kOdd = [] {
    Words odd{};
    for (uint16_t i = 0; i < 32; i++) odd.at[i] = static_cast<uint16_t>(2 * i + 1);
    return odd;
  }();
  return _mm512_permutex2var_epi16(a, kOdd.vec(), b);
}

// The first is cut off, so that the rest is exact; the rest is rounded.
Parts parts_of_floats(__m512 a, __m512 b) {
  const auto rest = [](__m512 x) {
    const __m512i high = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(-0x10000));
    const __m512 cut_off = _mm512_sub_ps(x, _mm512_castsi512_ps(high));
    return _mm512_add_epi32(_mm512_castps_si512(cut_off), _mm512_set1_epi32(0x8000));
  };
  return {high_words(_mm512_castps_si512(a), _mm512_castps_si512(b)), high_words(rest(a), rest(b))};
}

}  // namespace
}  // namespace nibble
