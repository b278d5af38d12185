#include "models/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble {

namespace {

// The frequency of a llama3-scaled model for the unscaled frequency `f`.
double llama3_frequency(double f, const RopeParameters& p) {
  const double wavelength = 2 * std::numbers::pi / f;
  if (wavelength > p.original_max_position_embeddings / p.low_freq_factor) return f / p.factor;
  if (wavelength < p.original_max_position_embeddings / p.high_freq_factor) return f;
  const double keep =
      (p.original_max_position_embeddings / wavelength - p.low_freq_factor) / (p.high_freq_factor - p.low_freq_factor);
  return (1 - keep) * f / p.factor + keep * f;
}

// The dimension that turns `turns` times over the original context.
double yarn_dimension(double turns, const RopeParameters& p) {
  return static_cast<double>(p.rotary_dim) *
         std::log(p.original_max_position_embeddings / (turns * 2 * std::numbers::pi)) / (2 * std::log(p.theta));
}

}  // namespace

std::string_view rope_scaling_name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::none: return "default";
    case RopeScaling::linear: return "linear";
    case RopeScaling::llama3: return "llama3";
    case RopeScaling::yarn: return "yarn";
  }
  return "unknown";
}

double yarn_attention_factor(double factor, double mscale) {
  return 0.1 * mscale * std::log(std::max(factor, 1.0)) + 1;
}

Rotation make_rotation(const RopeParameters& p) {
  Rotation rotation;
  double yarn_low = 0, yarn_high = 0;
  if (p.scaling == RopeScaling::yarn) {
    yarn_low = yarn_dimension(p.beta_fast, p);
    yarn_high = yarn_dimension(p.beta_slow, p);
    if (p.truncate) {
      yarn_low = std::floor(yarn_low);
      yarn_high = std::ceil(yarn_high);
    }
    yarn_low = std::max(yarn_low, 0.0);
    yarn_high = std::min(yarn_high, static_cast<double>(p.rotary_dim - 1));
    if (yarn_low == yarn_high) yarn_high += 0.001;  // a ramp needs a width
    rotation.scale = static_cast<float>(p.attention_factor != 0 ? p.attention_factor : yarn_attention_factor(p.factor));
  }

  for (int64_t i = 0; i < p.rotary_dim / 2; i++) {
    double f = std::pow(p.theta, -2.0 * static_cast<double>(i) / static_cast<double>(p.rotary_dim));
    switch (p.scaling) {
      case RopeScaling::none: break;
      case RopeScaling::linear: f /= p.factor; break;
      case RopeScaling::llama3: f = llama3_frequency(f, p); break;
      case RopeScaling::yarn: {
        const double ramp = std::clamp((static_cast<double>(i) - yarn_low) / (yarn_high - yarn_low), 0.0, 1.0);
        f = ramp * f / p.factor + (1 - ramp) * f;
        break;
      }
    }
    rotation.inv_freq.push_back(static_cast<float>(f));
  }
  return rotation;
}

std::optional<RopeParameters> find_llama3_scaling(const RopeParameters& unscaled, std::span<const float> divisors) {
  const Rotation plain = make_rotation(unscaled);
  RopeParameters p = unscaled;
  p.scaling = RopeScaling::llama3;
  p.factor = *std::ranges::max_element(divisors);  // of the slowest frequencies
  // Every published model has low_freq_factor 1 and high_freq_factor 4; the original context is a power of two.
  for (p.original_max_position_embeddings = 16; p.original_max_position_embeddings <= 1 << 20;
       p.original_max_position_embeddings *= 2) {
    const Rotation scaled = make_rotation(p);
    bool same = true;
    for (size_t i = 0; i < divisors.size(); i++)
      same = same && std::abs(plain.inv_freq[i] / scaled.inv_freq[i] / divisors[i] - 1) < 1e-5f;
    if (same) return p;
  }
  return {};
}

}  // namespace nibble
