#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {

void check_sampling_options(const SamplingOptions& o) {
  const auto check = [](std::string_view name, auto value, decltype(value) low, decltype(value) high) {
    if (!(value >= low && value <= high))
      throw_input_error("{} is {}, a number from {} to {} expected", name, value, low, high);
  };
  check("repetition_penalty", o.repetition_penalty, 0.01f, 100);
  check("temperature", o.temperature, 0, 100);
  check("top_k", o.top_k, 0, 1'000'000'000);
  check("top_p", o.top_p, 0, 1);
  check("min_p", o.min_p, 0, 1);
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options),
      random_(options.seed ? *options.seed : std::random_device{}()),
      seen_(static_cast<size_t>(vocab_size)),
      probabilities_(static_cast<size_t>(vocab_size)) {
  check_sampling_options(options);
  candidates_.reserve(static_cast<size_t>(vocab_size));
  draws_.reserve(64);
}

void Sampler::accept(int32_t token) { seen_[static_cast<size_t>(token)] = true; }

// 53 random bits make the same double on every standard library, which std::uniform_real_distribution does not.
double Sampler::draw() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

std::optional<TokenChoice> Sampler::choice() const {
  if (options_.repetition_penalty != 1.0f) return {};
  return TokenChoice{
      .temperature = options_.temperature, .top_k = options_.top_k, .top_p = options_.top_p, .min_p = options_.min_p};
}

std::span<const double> Sampler::draws(int64_t count) {
  while (static_cast<int64_t>(draws_.size()) < count) draws_.push_back(draw());
  return {draws_.data(), static_cast<size_t>(count)};
}

void Sampler::use_draws(int64_t count) { draws_.erase(draws_.begin(), draws_.begin() + count); }

int32_t Sampler::sample(std::span<const float> logits) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); i++) {
    float logit = logits[i];
    if (std::isnan(logit)) continue;
    if (seen_[i] && options_.repetition_penalty != 1.0f)
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    candidates_.push_back({logit, static_cast<int32_t>(i)});
  }
  if (candidates_.empty()) throw_input_error("all {} logits are NaN; the weights are damaged", logits.size());

  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  if (options_.temperature == 0) return std::ranges::min_element(candidates_, better)->token;

  size_t count = candidates_.size();
  if (options_.top_k > 0) count = std::min(count, static_cast<size_t>(options_.top_k));
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count), candidates_.end(),
                    better);

  const double best = candidates_[0].logit;
  double total = 0;
  for (size_t i = 0; i < count; i++)
    total += probabilities_[i] = std::exp((candidates_[i].logit - best) / options_.temperature);

  double kept = 0;
  size_t num_kept = 0;
  while (num_kept < count && (num_kept == 0 || (kept < options_.top_p * total &&
                                                probabilities_[num_kept] >= options_.min_p * probabilities_[0])))
    kept += probabilities_[num_kept++];

  double at = draws(1)[0] * kept;
  use_draws(1);
  for (size_t i = 0; i + 1 < num_kept; i++) {
    at -= probabilities_[i];
    if (at < 0) return candidates_[i].token;
  }
  return candidates_[num_kept - 1].token;
}

}  // namespace nibble
