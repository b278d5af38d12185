#include "engine/batch.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {

Batch::Batch(Engine& engine)
    : engine_(engine),
      cache_(engine.backend().make_kv_cache(engine.kv_cache_shape())),
      steps_(static_cast<size_t>(engine.kv_cache_shape().num_sequences + kPromptSteps)),  // one for each number of them
      lengths_(static_cast<size_t>(engine.kv_cache_shape().num_sequences)),
      longest_(lengths_.size()) {}

CompiledStep& Batch::step(int64_t M, LogitsFor logits_for) {
  if (M == 1) logits_for = LogitsFor::all_tokens;  // the last token's are those of all
  return steps_.get(engine_, M, logits_for);
}

void Batch::check(std::span<const int32_t> tokens, std::span<const int32_t> sequences) const {
  const int64_t vocab_size = engine_.model().config.vocab_size;
  if (tokens.empty() || tokens.size() != sequences.size())
    throw_input_error("{} tokens for {} sequences; as many of both, at least 1, expected", tokens.size(),
                      sequences.size());
  for (const int32_t sequence : sequences)
    if (sequence < 0 || sequence >= num_sequences())
      throw_input_error("sequence {} does not exist: there are {}", sequence, num_sequences());
  for (size_t i = 0; i < tokens.size(); i++) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size)
      throw_input_error("token {} does not exist: the model's vocabulary has {} tokens", tokens[i], vocab_size);
    const auto upcoming = std::ranges::count(sequences.subspan(i), sequences[i]);
    if (upcoming > cache_->shape.spare + 1)
      throw_input_error("sequence {}: {} tokens in one step, at most {} expected", sequences[i], upcoming,
                        cache_->shape.spare + 1);
    if (length(sequences[i]) + upcoming > max_len())
      throw_input_error("sequence {}: {} tokens do not fit into a context of {}", sequences[i],
                        length(sequences[i]) + upcoming, max_len());
  }
}

std::span<const float> Batch::extend(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                                     LogitsFor logits_for) {
  check(tokens, sequences);
  pos_.resize(std::max(pos_.size(), tokens.size()));
  for (size_t i = 0; i < tokens.size(); i++)
    pos_[i] = static_cast<int32_t>(lengths_[static_cast<size_t>(sequences[i])]++);
  for (size_t s = 0; s < lengths_.size(); s++) longest_[s] = std::max(longest_[s], lengths_[s]);
  const size_t num_rows = logits_for == LogitsFor::all_tokens ? tokens.size() : 1;
  const size_t values = num_rows * static_cast<size_t>(engine_.model().config.vocab_size);
  logits_.resize(std::max(logits_.size(), values));
  CompiledStep& compiled = step(static_cast<int64_t>(tokens.size()), logits_for);
  compiled.run({tokens, std::span(pos_).first(tokens.size()), sequences}, *cache_, std::span(logits_).first(values));
  last_step_ = &compiled;
  return std::span(logits_).first(values);
}

int64_t Batch::max_ahead(std::span<const int32_t> sequences) {
  // What is chosen in vain can be forgotten again: no more than the cache has to spare.
  int64_t most = std::min(step(static_cast<int64_t>(sequences.size())).max_ahead(), cache_->shape.spare);
  for (const int32_t sequence : sequences) most = std::min(most, max_len() - length(sequence));
  return most;
}

int64_t Batch::extend_ahead(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                            const TokenChoice& choice, std::span<const double> draws, std::span<int32_t> chosen) {
  check(tokens, sequences);
  for (size_t i = 0; i < sequences.size(); i++)
    if (std::ranges::count(sequences, sequences[i]) > 1)
      throw_input_error("sequence {} is there {} times, once expected", sequences[i],
                        std::ranges::count(sequences, sequences[i]));
  const auto num_steps = static_cast<int64_t>(chosen.size() / tokens.size());
  if (num_steps > max_ahead(sequences) || chosen.size() % tokens.size() != 0 || draws.size() != chosen.size())
    throw_input_error("{} draws and room for {} tokens; as many of both expected, for up to {} steps of {} sequences",
                      draws.size(), chosen.size(), max_ahead(sequences), tokens.size());
  pos_.resize(std::max(pos_.size(), tokens.size()));
  for (size_t i = 0; i < tokens.size(); i++) pos_[i] = static_cast<int32_t>(length(sequences[i]));
  CompiledStep& compiled = step(static_cast<int64_t>(tokens.size()));
  const int64_t count =
      compiled.run_ahead({tokens, std::span(pos_).first(tokens.size()), sequences}, *cache_, choice, draws, chosen);
  for (const int32_t sequence : sequences) {
    const auto s = static_cast<size_t>(sequence);
    longest_[s] = std::max(longest_[s], lengths_[s] + num_steps);
    lengths_[s] += count;
  }
  last_step_ = &compiled;
  return count;
}

std::span<const float> Batch::prefill(std::span<const int32_t> tokens, int32_t sequence) {
  const std::vector<int32_t> sequences(static_cast<size_t>(engine_.options().prefill_block), sequence);
  std::span<const float> logits;
  while (!tokens.empty()) {
    const size_t count = std::min(tokens.size(), sequences.size());
    logits = extend(tokens.first(count), std::span(sequences).first(count), LogitsFor::last_token);
    tokens = tokens.subspan(count);
  }
  return logits;
}

void Batch::repeat(int32_t sequence, int64_t length) {
  const int64_t most = engine_.options().prefill_block;
  int64_t& present = lengths_[static_cast<size_t>(sequence)];
  if (present < 1 || present > most)
    throw_input_error("sequence {}: {} positions to repeat; 1 to {} expected", sequence, present, most);
  if (length > max_len())
    throw_input_error("sequence {}: {} positions do not fit into a context of {}", sequence, length, max_len());
  cache_->repeat(sequence, present, length);
  present = std::max(present, length);
  longest_[static_cast<size_t>(sequence)] = std::max(longest_[static_cast<size_t>(sequence)], present);
}

void Batch::truncate(int64_t length) {
  for (size_t s = 0; s < lengths_.size(); s++) {
    if (!cache_->shape.can_resume(longest_[s], std::min(lengths_[s], length)))
      throw_input_error(
          "sequence {} has had {} positions and cannot go back to {}: its layers with a window keep {} positions "
          "beyond it",
          s, longest_[s], length, cache_->shape.spare);
    lengths_[s] = std::min(lengths_[s], length);
    if (lengths_[s] == 0) longest_[s] = 0;
  }
}

int64_t Batch::bytes_per_step() const {
  int64_t bytes = last_step_ != nullptr ? last_step_->last_weight_bytes() : 0;
  for (const int64_t length : lengths_) bytes += cache_->shape.bytes_read(length);
  return bytes;
}

}  // namespace nibble
