// From logits to the next token.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "ops/token_choice.h"

namespace nibble {

// In the order in which they are applied. The defaults change nothing; temperature 0 takes the best token.
struct SamplingOptions {
  float repetition_penalty = 1.0f;  // logits of tokens seen before: divided by it if positive, else multiplied
  float temperature = 0.0f;
  int64_t top_k = 0;             // 0: all
  float top_p = 1.0f;            // the smallest set of best tokens whose probabilities reach it (arXiv:1904.09751)
  float min_p = 0.0f;            // at least this share of the best token's probability (arXiv:2407.01082)
  std::optional<uint64_t> seed;  // none: another one each time
};

// Throws InputError if a value is outside its range, with its name, the value and the range.
void check_sampling_options(const SamplingOptions& options);

class Sampler {
 public:
  Sampler(const SamplingOptions& options, int64_t vocab_size);

  // The next token. Ties go to the lower id. Logits that are NaN are never chosen; InputError if all are. Allocates
  // nothing.
  int32_t sample(std::span<const float> logits);

  // Tells the penalty that a token is now part of the text.
  void accept(int32_t token);

  // For a device that chooses tokens (CompiledStep::run_ahead): what sample does, or nothing if only the host knows it
  // (a repetition penalty); and the random numbers of the next `count` choices, valid until the next call of sample or
  // draws. Choices that the device has made use theirs up.
  std::optional<TokenChoice> choice() const;
  std::span<const double> draws(int64_t count);
  void use_draws(int64_t count);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };

  double draw();  // in [0, 1)

  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<double> draws_;  // made for a device and not yet used
  std::vector<bool> seen_;
  std::vector<Candidate> candidates_;
  std::vector<double> probabilities_;
};

}  // namespace nibble
