// Canonical weights of random codes and scales, for kernels' tests and benchmarks: made directly, without an encoder.
#pragma once

#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "backends/random_floats.h"
#include "formats/formats.h"
#include "weights/weight.h"

namespace nibble {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One random scale, of a size that keeps sums of a few thousand weights within float32.
inline void random_scale(FormatId format, std::mt19937& random, uint8_t* out) {
  const auto half = [&](uint8_t* to) {
    const auto bits = static_cast<uint16_t>((random() & 0x83FF) | ((8 + random() % 10) << 10));  // 2^-7 … 2^2, signed
    std::memcpy(to, &bits, 2);
  };
  const auto number = [&](float unit, uint8_t* to) {  // a float within a factor of two
    const float value = unit * (1.0f + static_cast<float>(random() % 1024) / 1024);
    std::memcpy(to, &value, 4);
  };
  switch (format) {
    case FormatId::mxfp4:
    case FormatId::mxfp4_transposed: *out = static_cast<uint8_t>(118 + random() % 12); break;
    case FormatId::nvfp4:
    case FormatId::nvfp4_transposed: *out = static_cast<uint8_t>(random() % 0x7F); break;
    case FormatId::q4_1:
    case FormatId::q5_1: half(out), half(out + 2); break;
    case FormatId::q4_k:
    case FormatId::q5_k:
      half(out), half(out + 2);
      for (int i = 4; i < kKScaleBytes; i++) out[i] = static_cast<uint8_t>(random());
      break;
    case FormatId::q6_k:
      for (int i = 0; i < 16; i++) out[i] = static_cast<uint8_t>(random());
      half(out + 16);
      break;
    case FormatId::fp8_128: number(1.0f, out); break;
    case FormatId::affine4_32:
    case FormatId::affine4_64:
    case FormatId::affine4_128:
    case FormatId::affine8_32:
    case FormatId::affine8_64:
    case FormatId::affine8_128: number(random() % 2 == 0 ? 1.0f : -1.0f, out), number(-8.0f, out + 4); break;
    default: half(out);
  }
}

// `num_parts` parts of about equal rows, each with its own tensor scales if the format has them.
inline CanonicalWeight random_weight(FormatId format, int64_t E, int64_t N, int64_t K, int num_parts, uint32_t seed) {
  std::mt19937 random(seed);
  const auto num_codes = static_cast<size_t>(E * N * code_bytes(format, K));
  const auto num_scales = static_cast<size_t>(E * scale_bytes(format, N, K));
  auto storage = std::make_shared<std::vector<uint8_t>>(num_codes + num_scales);
  uint8_t* codes = storage->data();
  uint8_t* scales = codes + num_codes;
  for (size_t i = 0; i < num_codes; i++) codes[i] = static_cast<uint8_t>(random());
  const size_t count = num_codes / 2;
  for (size_t i = 0; i < count; i++) {  // floats must be finite
    if (format == FormatId::f32 && i % 2 == 0) {
      const float value = random_float(random);
      std::memcpy(codes + 2 * i, &value, 4);
    } else if (format == FormatId::f16 || format == FormatId::bf16) {
      const float value = random_float(random);
      const uint16_t bits = format == FormatId::f16 ? float_to_half(value) : float_to_bf16(value);
      std::memcpy(codes + 2 * i, &bits, 2);
    }
  }
  if (format == FormatId::fp8 || format == FormatId::fp8_128)
    for (size_t i = 0; i < num_codes; i++)
      if (!is_e4m3_number(codes[i])) codes[i] = 0;
  const int64_t group_bytes = visit_format(format, [](auto tag) { return int64_t{decltype(tag)::group_scale_bytes}; });
  for (size_t i = 0; i < num_scales; i += static_cast<size_t>(group_bytes)) random_scale(format, random, scales + i);

  CanonicalWeight w{.format = format, .E = E, .N = N, .K = K};
  w.codes = {codes, num_codes};
  w.scales = {scales, num_scales};
  for (int part = 0; part < num_parts; part++) {
    Part p{.first_row = N * part / num_parts};
    for (int64_t e = 0; e < E; e++)
      p.tensor_scale.push_back(has_tensor_scale(format) ? std::ldexp(1.0f + 0.1f * static_cast<float>(e), part) / 100
                                                        : 1);
    if (part == 0 || p.first_row != w.parts.back().first_row) w.parts.push_back(p);
  }
  w.storage = std::move(storage);
  return w;
}

inline std::vector<float> random_activations(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = random_float(random) * std::exp(random_float(random));  // some stand out
  return x;
}

}  // namespace nibble
