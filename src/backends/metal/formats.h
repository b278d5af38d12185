// For shaders: how 32 weights of a row, a chunk, become floats. One struct for each packed format (packed_matrix.h).
//
// E2M1 and E4M3 are halves whose exponent is too small by 14 and by 8: their bits are put in a half's place, and the row's
// factor makes up for it. Neighbours of a 4-bit format lie 16 bits apart, so that a mask and a shift give two at a time
// (Apple's GPUs shift slowly). Halves that are subnormal count: E2M1's 0.5 is one.
#pragma once

#include <metal_stdlib>

#include "backends/metal/arguments.h"

namespace nibble {

using namespace metal;

// weight[i] = v[i / 4][i % 4] * scale[i / 16], times the row's factor
struct Weights {
  float4 v[8];
  float2 scale;
};

static inline float2 halves(uint bits) { return float2(as_type<half2>(bits)); }

// A word's eight E2M1 codes, each 2^-14 of its value.
static inline void decode_e2m1(uint word, thread float4* out) {
  out[0] = float4(halves(((word & 0x00070007u) << 9) | ((word & 0x00080008u) << 12)),
                  halves(((word & 0x00700070u) << 5) | ((word & 0x00800080u) << 8)));
  out[1] = float4(halves(((word & 0x07000700u) << 1) | ((word & 0x08000800u) << 4)),
                  halves(((word & 0x70007000u) >> 3) | (word & 0x80008000u)));
}

// A word's eight 4-bit integers: 0x6400 is the half 1024, of which the last bit counts 1.
static inline void decode_integers(uint word, thread float4* out) {
  const uint above = word >> 8;
  out[0] = float4(halves((word & 0x000F000Fu) | 0x64006400u) - 1024.0f,
                  halves((word & 0x00F000F0u) | 0x64006400u) * 0.0625f - 64.0f);
  out[1] = float4(halves((above & 0x000F000Fu) | 0x64006400u) - 1024.0f,
                  halves((above & 0x00F000F0u) | 0x64006400u) * 0.0625f - 64.0f);
}

static inline uint4 code_words(device const uchar* codes, uint index) {
  return reinterpret_cast<device const uint4*>(codes)[index];
}

static inline Weights e2m1_weights(device const uchar* codes, uint chunk) {
  const uint4 words = code_words(codes, chunk);
  Weights w;
  for (uint i = 0; i < 4; i++) decode_e2m1(words[i], w.v + 2 * i);
  return w;
}

static inline Weights integer_weights(device const uchar* codes, uint chunk) {
  const uint4 words = code_words(codes, chunk);
  Weights w;
  for (uint i = 0; i < 4; i++) decode_integers(words[i], w.v + 2 * i);
  return w;
}

struct Mxfp4 {
  static Weights load(device const uchar* codes, device const uchar* scales, uint chunk) {
    Weights w = e2m1_weights(codes, chunk);
    w.scale = float2(as_type<float>(max(uint(scales[chunk]) << 23, 0x00400000u)));  // the smallest is 2^-127
    return w;
  }
};

struct Nvfp4 {
  static Weights load(device const uchar* codes, device const uchar* scales, uint chunk) {
    Weights w = e2m1_weights(codes, chunk);
    const uint pair = reinterpret_cast<device const ushort*>(scales)[chunk];
    w.scale = halves(((pair & 0x7Fu) << 7) | ((pair & 0x7F00u) << 15));
    return w;
  }
};

struct Fp4Half {
  static Weights load(device const uchar* codes, device const uchar* scales, uint chunk) {
    Weights w = e2m1_weights(codes, chunk);
    w.scale = float2(reinterpret_cast<device const half*>(scales)[chunk]);
    return w;
  }
};

struct Q4_0 {
  static Weights load(device const uchar* codes, device const uchar* scales, uint chunk) {
    Weights w = integer_weights(codes, chunk);
    for (uint i = 0; i < 8; i++) w.v[i] -= 8.0f;
    w.scale = float2(reinterpret_cast<device const half*>(scales)[chunk]);
    return w;
  }
};

struct Q4_1 {
  static Weights load(device const uchar* codes, device const uchar* scales, uint chunk) {
    Weights w = integer_weights(codes, chunk);
    const half2 scale_and_minimum = reinterpret_cast<device const half2*>(scales)[chunk];
    const float scale = float(scale_and_minimum.x), minimum = float(scale_and_minimum.y);
    for (uint i = 0; i < 8; i++) w.v[i] = fma(w.v[i], float4(scale), float4(minimum));
    w.scale = float2(1.0f);
    return w;
  }
};

struct Q8_0 {
  static Weights load(device const uchar* codes, device const uchar* scales, uint chunk) {
    Weights w;
    for (uint i = 0; i < 2; i++) {
      const uint4 words = code_words(codes, 2 * chunk + i);
      for (uint j = 0; j < 4; j++) w.v[4 * i + j] = float4(as_type<char4>(words[j]));
    }
    w.scale = float2(reinterpret_cast<device const half*>(scales)[chunk]);
    return w;
  }
};

struct F16 {
  static Weights load(device const uchar* codes, device const uchar*, uint chunk) {
    Weights w;
    for (uint i = 0; i < 4; i++) {
      const uint4 words = code_words(codes, 4 * chunk + i);
      w.v[2 * i] = float4(halves(words.x), halves(words.y));
      w.v[2 * i + 1] = float4(halves(words.z), halves(words.w));
    }
    w.scale = float2(1.0f);
    return w;
  }
};

struct Bf16 {
  static float2 pair(uint bits) { return float2(as_type<float>(bits << 16), as_type<float>(bits & 0xFFFF0000u)); }
  static Weights load(device const uchar* codes, device const uchar*, uint chunk) {
    Weights w;
    for (uint i = 0; i < 4; i++) {
      const uint4 words = code_words(codes, 4 * chunk + i);
      w.v[2 * i] = float4(pair(words.x), pair(words.y));
      w.v[2 * i + 1] = float4(pair(words.z), pair(words.w));
    }
    w.scale = float2(1.0f);
    return w;
  }
};

struct F32 {
  static Weights load(device const uchar* codes, device const uchar*, uint chunk) {
    Weights w;
    for (uint i = 0; i < 8; i++) w.v[i] = as_type<float4>(code_words(codes, 8 * chunk + i));
    w.scale = float2(1.0f);
    return w;
  }
};

}  // namespace nibble

// A kernel template for each format: NAME_mxfp4 … NAME_f32. `instantiate` is a macro of a host name and a format.
#define NIBBLE_EACH_FORMAT(instantiate, name)                                                                \
  instantiate(name "_mxfp4", Mxfp4) instantiate(name "_nvfp4", Nvfp4) instantiate(name "_fp4_half", Fp4Half) \
      instantiate(name "_q4_0", Q4_0) instantiate(name "_q4_1", Q4_1) instantiate(name "_q8_0", Q8_0)        \
          instantiate(name "_f16", F16) instantiate(name "_bf16", Bf16) instantiate(name "_f32", F32)
