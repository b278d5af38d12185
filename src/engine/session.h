// One sequence being decoded: its cache, and the compiled steps that extend it.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/step_cache.h"

namespace nibble {

// Throws InputError unless `tokens`, at least one, are of the model's vocabulary and fit into `max_len` positions, of which
// `length` are used. Session asks this; whoever asks before the weights are loaded need not wait for the answer.
void check_tokens(std::span<const int32_t> tokens, const DecoderConfig& config, int64_t length, int64_t max_len);

class Session {
 public:
  // Makes the cache and compiles the step for one token, so that decode allocates nothing.
  explicit Session(Engine& engine);

  // Positions used so far, and those that there are.
  int64_t length() const { return length_; }
  const Engine& engine() const { return engine_; }
  int64_t max_len() const { return cache_->shape.max_len; }

  // Puts a prompt through, in blocks, and returns the logits [vocab_size] after its last token, valid until the next
  // call. Throws InputError if the tokens, at least one, do not fit the vocabulary or the context, or if all logits are
  // NaN. Once `stop` is set, it ends after a block, and returns nothing if tokens are left.
  std::span<const float> prefill(std::span<const int32_t> tokens, const std::atomic<bool>* stop = nullptr);

  // The same for all tokens: out is [tokens, vocab_size]. Blocks have `block` tokens, or as many as the cache has to
  // spare (KvCacheShape::spare) if those are fewer; 1 feeds them one by one.
  void forward(std::span<const int32_t> tokens, int64_t block, float* out);

  // One step. `token` is within the vocabulary and length() below max_len(). Allocates nothing.
  std::span<const float> decode(int32_t token);

  // Up to draws.size() steps without the host between them, if the backend has such (CompiledStep::run_ahead): puts `token`
  // and those that are chosen after it into the cache, all but the last, which are as many as it returns.
  int64_t decode_ahead(int32_t token, const TokenChoice& choice, std::span<const double> draws,
                       std::span<int32_t> tokens);
  // How many steps that can be now; 0: decode is the only way.
  int64_t max_ahead() const;

  // Goes on to `length` positions with copies of those there are (KvCache::repeat). Throws InputError if there are none, or
  // more than prefill_block, or if `length` exceeds max_len(). Measurements at a depth need no more.
  void repeat(int64_t length);

  // The tokens at the positions used so far.
  std::span<const int32_t> tokens() const { return {tokens_.data(), static_cast<size_t>(length_)}; }

  // Forgets all positions from `length` on; or everything, if a layer with a window has forgotten what the next token
  // would need (EngineOptions::kv_spare). length() tells.
  void truncate(int64_t length);

  // Keeps what is common to the cache and the beginning of `prompt`, but not its last token, whose logits will be asked
  // for; forgets the rest, as truncate does. Returns the tokens kept: prompt.subspan of that is what to put through.
  int64_t keep_prefix(std::span<const int32_t> prompt);

  // Bytes that a decode step at the present, or some other length reads: packed weights and cached keys and values.
  int64_t bytes_per_token() const { return bytes_per_token(length_); }
  int64_t bytes_per_token(int64_t length) const;

  CompiledStep& decode_step() { return *decode_step_; }

 private:
  CompiledStep& step(int64_t M, LogitsFor logits_for);
  void run(CompiledStep& step, std::span<const int32_t> tokens, std::span<float> logits);
  void check_logits(std::span<const float> logits, int64_t pos) const;

  Engine& engine_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CompiledStep> decode_step_;
  StepCache steps_{kPromptSteps};
  std::vector<int32_t> pos_, sequence_;
  std::vector<float> logits_;
  std::vector<int32_t> tokens_;  // [max_len]
  int64_t length_ = 0;
  int64_t longest_ = 0;  // length_ at its most since it was 0
};

}  // namespace nibble
