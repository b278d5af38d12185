// The frequencies of rotary position embeddings, with the ways in which models stretch them to longer contexts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "ops/step.h"

namespace nibble {

enum class RopeScaling : uint8_t { none, linear, llama3, yarn };

struct RopeParameters {
  double theta = 10000.0;
  int64_t rotary_dim = 0;  // even
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;  // how many times longer than the original context
  double original_max_position_embeddings = 0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  bool truncate = true;                                  // yarn: the ramp's ends are whole dimensions
  double attention_factor = 0.0;                         // yarn; 0: 0.1 ln(factor) + 1
  double mscale_all_dim = 0.0;                           // yarn: what scores are stretched by; 0: they are not
};

std::string_view rope_scaling_name(RopeScaling scaling);

// YaRN's own attention factor, 0.1 mscale ln(factor) + 1.
double yarn_attention_factor(double factor, double mscale = 1.0);

// none    inv_freq[i] = theta^(-2i / rotary_dim)
// linear  that / factor (arXiv:2306.15595)
// llama3  wavelengths beyond original / low_freq_factor divided by factor, those below original / high_freq_factor
// kept,
//         between them a blend (Llama 3.1's reference implementation)
// yarn    a blend by dimension between both, and cosine and sine times attention_factor (arXiv:2309.00071, section 3)
Rotation make_rotation(const RopeParameters& parameters);

// GGUF files hold llama3's scaling only as what it divides each frequency by. Finds the parameters that give these
// divisors (within float32), or none.
std::optional<RopeParameters> find_llama3_scaling(const RopeParameters& unscaled, std::span<const float> divisors);

}  // namespace nibble
