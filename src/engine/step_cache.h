// Steps compiled for the numbers of tokens that came last. Each holds scratch memory for its tokens, so that a step for
// every length of a prompt's end would add up.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace nibble {

// Steps of prompts that are kept: a whole block's, and one of an end. Those of 512 tokens take 19 MB (SmolLM2-135M) to 270 MB
// (GLM-4.7-Flash), and ends seldom have a length that came before.
constexpr int64_t kPromptSteps = 2;

class StepCache {
 public:
  // Holds `most` steps at most, at least 1; the one used longest ago goes first.
  explicit StepCache(size_t most) : most_(most) {}

  // Compiles the step if it is not there. It stays until `most` others were asked for.
  CompiledStep& get(Engine& engine, int64_t M, LogitsFor logits_for) {
    const auto found = std::ranges::find_if(
        entries_, [&](const Entry& entry) { return entry.M == M && entry.logits_for == logits_for; });
    if (found != entries_.end()) {
      std::rotate(found, found + 1, entries_.end());
    } else {
      if (entries_.size() == most_) entries_.erase(entries_.begin());
      entries_.push_back({M, logits_for, engine.compile(engine.model().forward(M, logits_for))});
    }
    return *entries_.back().step;
  }

  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    int64_t M;
    LogitsFor logits_for;
    std::unique_ptr<CompiledStep> step;
  };
  const size_t most_;
  std::vector<Entry> entries_;  // the last used last
};

}  // namespace nibble
