// Several sequences decoded together: each has its cache and its position, one step takes a token of each. The weights
// are read once for all of them, and a sequence's logits do not depend, to the bit, on its neighbours.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/step_cache.h"

namespace nibble {

class Batch {
 public:
  // Makes caches for EngineOptions::num_sequences sequences.
  explicit Batch(Engine& engine);

  // One step: token i extends sequences[i], and takes its next position. Several tokens may extend one sequence.
  // Returns their logits [tokens, vocab_size], or the last one's, valid until the next call. Throws InputError for a
  // token, a sequence or a position that there is not. Allocates nothing for a number of tokens that was there before.
  std::span<const float> extend(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                                LogitsFor logits_for = LogitsFor::all_tokens);

  // Up to `max_ahead` steps without the host between them, if the backend has such (CompiledStep::run_ahead): token i, and those
  // that are chosen after it, extend sequences[i], another one each. draws and chosen are [steps, tokens]. Returns how many of
  // the steps count: the cache has `tokens` and what was chosen in all of them but the last.
  int64_t extend_ahead(std::span<const int32_t> tokens, std::span<const int32_t> sequences, const TokenChoice& choice,
                       std::span<const double> draws, std::span<int32_t> chosen);
  // How many steps that can be now for these sequences; 0: extend is the only way.
  int64_t max_ahead(std::span<const int32_t> sequences);

  // Puts a prompt of one sequence through, in blocks; the logits after its last token.
  std::span<const float> prefill(std::span<const int32_t> tokens, int32_t sequence);

  // A sequence goes on to `length` positions with copies of those it has (KvCache::repeat). Throws InputError if it has
  // none, or more than prefill_block, or if `length` exceeds max_len(). Measurements at a depth need no more.
  void repeat(int32_t sequence, int64_t length);

  int64_t num_sequences() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t max_len() const { return cache_->shape.max_len; }
  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }

  // Every sequence forgets its positions from `length` on. Throws InputError if a layer with a window has forgotten what
  // the next token would need (EngineOptions::kv_spare).
  void truncate(int64_t length);

  // Bytes that the last step, which took a token of each sequence, read: packed weights, of experts those that its
  // tokens chose, and the cached keys and values of all sequences. After extend_ahead it is the last of those steps.
  int64_t bytes_per_step() const;

  // The step for M tokens, for its phases.
  CompiledStep& step(int64_t M, LogitsFor logits_for = LogitsFor::all_tokens);

 private:
  void check(std::span<const int32_t> tokens, std::span<const int32_t> sequences) const;

  Engine& engine_;
  std::unique_ptr<KvCache> cache_;
  StepCache steps_;
  const CompiledStep* last_step_ = nullptr;
  std::vector<int64_t> lengths_;
  std::vector<int64_t> longest_;  // a length at its most since it was 0
  std::vector<int32_t> pos_;
  std::vector<float> logits_;
};

}  // namespace nibble
