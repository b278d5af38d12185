#include "engine/session.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace nibble {

namespace {

std::unique_ptr<KvCache> make_cache(Engine& engine) {
  KvCacheShape shape = engine.kv_cache_shape();
  shape.num_sequences = 1;
  return engine.backend().make_kv_cache(shape);
}

}  // namespace

void check_tokens(std::span<const int32_t> tokens, const DecoderConfig& config, int64_t length, int64_t max_len) {
  for (int32_t token : tokens)
    if (token < 0 || token >= config.vocab_size)
      throw_input_error("token {} does not exist: the model's vocabulary has {} tokens", token, config.vocab_size);
  if (tokens.empty()) throw_input_error("the prompt has no tokens, at least 1 expected");
  if (length + static_cast<int64_t>(tokens.size()) > max_len)
    throw_input_error("{} tokens do not fit into a context of {}; a larger --ctx (the model has {}) would hold them",
                      length + static_cast<int64_t>(tokens.size()), max_len, config.max_position_embeddings);
}

Session::Session(Engine& engine)
    : engine_(engine),
      cache_(make_cache(engine)),
      decode_step_(engine.compile(engine.model().forward(1, LogitsFor::last_token))),
      pos_(1),
      sequence_(1),
      logits_(static_cast<size_t>(engine.model().config.vocab_size)),
      tokens_(static_cast<size_t>(max_len())) {}

CompiledStep& Session::step(int64_t M, LogitsFor logits_for) {
  if (M == 1) return *decode_step_;  // the logits of the last token are those of all
  return steps_.get(engine_, M, logits_for);
}

void Session::run(CompiledStep& step, std::span<const int32_t> tokens, std::span<float> logits) {
  if (pos_.size() < tokens.size()) {
    pos_.resize(tokens.size());
    sequence_.resize(tokens.size());
  }
  std::iota(pos_.begin(), pos_.begin() + static_cast<std::ptrdiff_t>(tokens.size()), static_cast<int32_t>(length_));
  step.run({tokens, std::span(pos_).first(tokens.size()), std::span(sequence_).first(tokens.size())}, *cache_, logits);
  std::ranges::copy(tokens, tokens_.begin() + length_);
  length_ += static_cast<int64_t>(tokens.size());
  longest_ = std::max(longest_, length_);
}

std::span<const float> Session::prefill(std::span<const int32_t> tokens, const std::atomic<bool>* stop) {
  check_tokens(tokens, engine_.model().config, length_, max_len());
  while (!tokens.empty()) {
    if (stop != nullptr && *stop) return {};
    const size_t count = std::min(tokens.size(), static_cast<size_t>(engine_.options().prefill_block));
    run(step(static_cast<int64_t>(count), LogitsFor::last_token), tokens.first(count), logits_);
    tokens = tokens.subspan(count);
  }
  check_logits(logits_, length_ - 1);
  return logits_;
}

void Session::check_logits(std::span<const float> logits, int64_t pos) const {
  if (std::ranges::all_of(logits, [](float logit) { return std::isnan(logit); }))
    throw_input_error("{}: all logits at position {} are NaN; the weights are damaged",
                      engine_.checkpoint().path.string(), pos);
}

void Session::forward(std::span<const int32_t> tokens, int64_t block, float* out) {
  check_tokens(tokens, engine_.model().config, length_, max_len());
  while (!tokens.empty()) {
    const size_t count = std::min(tokens.size(), static_cast<size_t>(std::min(block, cache_->shape.spare)));
    const size_t values = count * logits_.size();
    run(step(static_cast<int64_t>(count), LogitsFor::all_tokens), tokens.first(count), {out, values});
    for (size_t m = 0; m < count; m++, out += logits_.size())
      check_logits({out, logits_.size()}, length_ - static_cast<int64_t>(count - m));
    tokens = tokens.subspan(count);
  }
}

std::span<const float> Session::decode(int32_t token) {
  run(*decode_step_, {&token, 1}, logits_);
  return logits_;
}

int64_t Session::max_ahead() const {
  // What is chosen in vain can be forgotten again: no more than the cache has to spare.
  return std::min({decode_step_->max_ahead(), max_len() - length_, cache_->shape.spare});
}

int64_t Session::decode_ahead(int32_t token, const TokenChoice& choice, std::span<const double> draws,
                              std::span<int32_t> tokens) {
  const auto pos = static_cast<int32_t>(length_), sequence = int32_t{0};
  const int64_t num_chosen =
      decode_step_->run_ahead({{&token, 1}, {&pos, 1}, {&sequence, 1}}, *cache_, choice, draws, tokens);
  longest_ = std::max(longest_, length_ + static_cast<int64_t>(tokens.size()));
  for (int64_t i = 0; i < num_chosen; i++) {
    tokens_[static_cast<size_t>(length_++)] = token;
    token = tokens[static_cast<size_t>(i)];
  }
  return num_chosen;
}

void Session::repeat(int64_t length) {
  const int64_t most = engine_.options().prefill_block;
  if (length_ < 1 || length_ > most) throw_input_error("{} positions to repeat; 1 to {} expected", length_, most);
  if (length > max_len()) throw_input_error("{} positions do not fit into a context of {}", length, max_len());
  cache_->repeat(0, length_, length);
  const int64_t period = length_;
  for (; length_ < length; length_++)
    tokens_[static_cast<size_t>(length_)] = tokens_[static_cast<size_t>(length_ - period)];
  longest_ = std::max(longest_, length_);
}

void Session::truncate(int64_t length) {
  length_ = std::min(length_, length);
  if (!cache_->shape.can_resume(longest_, length_)) length_ = 0;
  if (length_ == 0) longest_ = 0;
}

int64_t Session::keep_prefix(std::span<const int32_t> prompt) {
  const auto differ = std::ranges::mismatch(tokens(), prompt.first(prompt.empty() ? 0 : prompt.size() - 1));
  truncate(differ.in2 - prompt.begin());
  return length_;
}

int64_t Session::bytes_per_token(int64_t length) const {
  return decode_step_->weight_bytes() + cache_->shape.bytes_read(length);
}

}  // namespace nibble
