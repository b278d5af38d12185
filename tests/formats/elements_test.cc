// Elements and scales: every code against arithmetic that knows only sign, exponent and mantissa.
#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "formats/bf16.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/e8m0.h"
#include "formats/f16.h"
#include "formats/f32.h"

namespace nibble {
namespace {

// What a small float means, from the definition: subnormal if its exponent field is zero.
double small_float(uint32_t code, int exponent_bits, int mantissa_bits, int bias) {
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const uint32_t exponent = (code >> mantissa_bits) & ((1u << exponent_bits) - 1);
  const double sign = (code >> (mantissa_bits + exponent_bits)) & 1 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1u << mantissa_bits), static_cast<int>(exponent) - bias - mantissa_bits);
}

// Equal in value and in sign.
void expect_same(double a, double b, uint32_t code) {
  EXPECT_EQ(a, b) << "code " << code;
  EXPECT_EQ(std::signbit(a), std::signbit(b)) << "code " << code;
}

TEST(E2m1, AllCodes) {
  for (uint32_t code = 0; code < 16; code++) {
    expect_same(e2m1_to_float(code), small_float(code, 2, 1, 1), code);
    EXPECT_EQ(e2m1_from_float(e2m1_to_float(code)), code);
  }
}

TEST(E2m1, RoundsToNearestAndTiesToTheEvenMantissa) {
  for (uint32_t code = 0; code < 7; code++) {
    const float below = e2m1_to_float(code), above = e2m1_to_float(code + 1), tie = (below + above) / 2;
    EXPECT_EQ(e2m1_from_float(tie), code % 2 == 0 ? code : code + 1) << tie;
    EXPECT_EQ(e2m1_from_float(std::nextafter(tie, 0.0f)), code);
    EXPECT_EQ(e2m1_from_float(std::nextafter(tie, 7.0f)), code + 1);
    EXPECT_EQ(e2m1_from_float(-tie), e2m1_from_float(tie) + 8);
  }
  EXPECT_EQ(e2m1_from_float(1e30f), 7u);
  EXPECT_EQ(e2m1_from_float(-std::numeric_limits<float>::infinity()), 15u);
  EXPECT_EQ(e2m1_from_float(-0.0f), 8u);
}

TEST(E8m0, AllCodes) {
  for (int code = 0; code < 255; code++)
    EXPECT_EQ(e8m0_to_float(static_cast<uint8_t>(code)), std::ldexp(1.0, code - 127));
  EXPECT_EQ(e8m0_to_float(0), 0x1p-127f);
  EXPECT_TRUE(std::isnan(e8m0_to_float(255)));
}

TEST(E4m3, AllCodes) {
  for (uint32_t code = 0; code < 256; code++) {
    const float value = e4m3_to_float(static_cast<uint8_t>(code));
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      expect_same(value, small_float(code, 4, 3, 7), code);
      EXPECT_EQ(e4m3_from_float(value), code);
    }
  }
  EXPECT_EQ(e4m3_to_float(0x7E), 448.0f);
  EXPECT_EQ(e4m3_to_float(1), 0x1p-9f);
}

TEST(E4m3, RoundsToNearestTiesToEvenAndStaysFinite) {
  for (uint8_t code = 0; code < 0x7E; code++) {
    const uint8_t next = code + 1;
    const float tie = (e4m3_to_float(code) + e4m3_to_float(next)) / 2;
    EXPECT_EQ(e4m3_from_float(tie), code % 2 == 0 ? code : next) << tie;
    EXPECT_EQ(e4m3_from_float(std::nextafter(tie, 0.0f)), code);
    EXPECT_EQ(e4m3_from_float(std::nextafter(tie, 500.0f)), next);
    EXPECT_EQ(e4m3_from_float(-tie), e4m3_from_float(tie) | 0x80);
  }
  EXPECT_EQ(e4m3_from_float(464.0f), 0x7E);
  EXPECT_EQ(e4m3_from_float(1e30f), 0x7E);
}

TEST(Half, AllBitsToFloatAndBack) {
  for (uint32_t bits = 0; bits < 65536; bits++) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    if ((bits & 0x7C00) != 0x7C00) {
      expect_same(value, small_float(bits, 5, 10, 15), bits);
      ASSERT_EQ(float_to_half(value), half);
    } else if ((bits & 0x3FF) == 0) {
      expect_same(value, (bits & 0x8000 ? -1 : 1) * std::numeric_limits<double>::infinity(), bits);
      ASSERT_EQ(float_to_half(value), half);
    } else {
      ASSERT_TRUE(std::isnan(value));
      ASSERT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    }
    const auto bytes = std::bit_cast<std::array<uint8_t, 2>>(half);
    EXPECT_EQ(F16::is_finite(bytes.data(), 0), std::isfinite(value));
  }
}

TEST(Half, RoundsToNearestTiesToEven) {
  for (uint16_t half = 0; half < 0x7BFF; half++) {
    const float tie = (half_to_float(half) + half_to_float(half + 1)) / 2;  // exact: one more bit
    ASSERT_EQ(float_to_half(tie), half % 2 == 0 ? half : half + 1) << half;
    ASSERT_EQ(float_to_half(std::nextafter(tie, 0.0f)), half);
    ASSERT_EQ(float_to_half(std::nextafter(tie, 1e6f)), half + 1);
    ASSERT_EQ(float_to_half(-tie), float_to_half(tie) | 0x8000);
  }
  EXPECT_EQ(float_to_half(std::nextafter(65520.0f, 0.0f)), 0x7BFF);
  EXPECT_EQ(float_to_half(65520.0f), 0x7C00);
  EXPECT_EQ(float_to_half(1e30f), 0x7C00);
  EXPECT_EQ(float_to_half(1e-40f), 0);
}

TEST(Bfloat16, AllBitsToFloatAndBack) {
  for (uint32_t bits = 0; bits < 65536; bits++) {
    const auto bfloat = static_cast<uint16_t>(bits);
    const float value = bf16_to_float(bfloat);
    const auto bytes = std::bit_cast<std::array<uint8_t, 2>>(bfloat);
    EXPECT_EQ(Bf16::is_finite(bytes.data(), 0), std::isfinite(value));
    const auto wide = std::bit_cast<std::array<uint8_t, 4>>(bits << 16 | (bits * 7 & 0xFFFF));
    EXPECT_EQ(F32::is_finite(wide.data(), 0), std::isfinite(F32::decode(wide.data(), nullptr, 0)));
    if ((bits & 0x7F80) != 0x7F80) {
      expect_same(value, small_float(bits, 8, 7, 127), bits);
    } else if ((bits & 0x7F) == 0) {
      expect_same(value, (bits & 0x8000 ? -1 : 1) * std::numeric_limits<double>::infinity(), bits);
    } else {
      ASSERT_TRUE(std::isnan(value));
      ASSERT_TRUE(std::isnan(bf16_to_float(float_to_bf16(value))));
      continue;
    }
    ASSERT_EQ(float_to_bf16(value), bfloat);
  }
}

TEST(Bfloat16, RoundsToNearestTiesToEven) {
  for (uint16_t bits = 0; bits < 0x7F7F; bits++) {
    const auto tie = static_cast<float>((small_float(bits, 8, 7, 127) + small_float(bits + 1u, 8, 7, 127)) / 2);
    ASSERT_EQ(float_to_bf16(tie), bits % 2 == 0 ? bits : bits + 1) << bits;
    ASSERT_EQ(float_to_bf16(std::nextafter(tie, 0.0f)), bits);
    ASSERT_EQ(float_to_bf16(std::nextafter(tie, 3.4e38f)), bits + 1);
  }
}

}  // namespace
}  // namespace nibble
