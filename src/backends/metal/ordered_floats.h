// For shaders: floats as unsigned numbers with the same order, so that the best of many is a maximum of integers.
#pragma once

#include <metal_stdlib>

// 0 is no float's but that of some NaN; both zeros are equal.
static inline uint ordered(float x) {
  const uint bits = as_type<uint>(x == 0.0f ? 0.0f : x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static inline float from_ordered(uint key) { return as_type<float>(key & 0x80000000u ? key ^ 0x80000000u : ~key); }
