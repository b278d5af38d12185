// From a prompt to an answer: prefill, then one step for each token until something stops it.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler.h"
#include "engine/session.h"
#include "text/tokenizer.h"

namespace nibble {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 512;
  std::vector<int32_t> stop_tokens;         // end the answer, and are not part of its text
  std::vector<std::string> stop_texts;      // the same for text; needs a tokenizer
  const std::atomic<bool>* stop = nullptr;  // ends the answer once it is set, from another thread or a signal
};

enum class FinishReason : uint8_t { stop, length, interrupted };

std::string_view finish_reason_name(FinishReason reason);  // "stop"

struct GenerateResult {
  std::vector<int32_t> tokens;  // generated, without the stop token
  std::string text;             // empty without a tokenizer
  FinishReason finish_reason = FinishReason::length;
  int64_t prompt_tokens = 0, decode_steps = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  double bytes_per_token = 0;  // read by a decode step, on average; 0 without decode steps

  double prefill_tok_s() const {
    return prefill_seconds > 0 ? static_cast<double>(prompt_tokens) / prefill_seconds : 0;
  }
  double decode_tok_s() const { return decode_seconds > 0 ? static_cast<double>(decode_steps) / decode_seconds : 0; }
  double read_gbps() const { return bytes_per_token * decode_tok_s() / 1e9; }
};

// Extends `session` by the prompt and the answer; what is in its cache already comes before the prompt. `on_text` hears
// each piece of text, whole UTF-8 sequences only, as soon as it cannot be the beginning of a stop text; `tokenizer` may
// be null. The answer also ends, for length, where the context does.
GenerateResult generate(Session& session, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const Tokenizer* tokenizer, const std::function<void(std::string_view)>& on_text);

// Holds back what may be the beginning of a stop text.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Adds text and returns what can be shown of it. After a stop text, stopped() and nothing more comes.
  std::string push(std::string_view text);
  // What was held back, at the end.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace nibble
