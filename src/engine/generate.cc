#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/token_stream.h"

namespace nibble {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    default: return "interrupted";
  }
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  size_t end = held_.size();  // what stands before it can be shown
  for (const std::string& stop : stops_) {
    const size_t at = stop.empty() ? std::string::npos : held_.find(stop);
    if (at == std::string::npos) continue;
    stopped_ = true;
    end = std::min(end, at);
  }
  if (stopped_) {
    held_.resize(end);
    return std::exchange(held_, {});
  }
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > 0; length--) {
      if (!held_.ends_with(std::string_view(stop).substr(0, length))) continue;
      end = std::min(end, held_.size() - length);
      break;
    }
  }
  std::string shown = held_.substr(0, end);
  held_.erase(0, end);
  return shown;
}

std::string StopFilter::finish() { return std::exchange(held_, {}); }

GenerateResult generate(Session& session, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const Tokenizer* tokenizer, const std::function<void(std::string_view)>& on_text) {
  GenerateResult result{.prompt_tokens = static_cast<int64_t>(prompt.size())};
  std::optional<StreamDecoder> decoder;
  if (tokenizer != nullptr) decoder.emplace(*tokenizer);
  StopFilter filter(options.stop_texts);
  const auto show = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    if (on_text) on_text(text);
  };

  auto start = Clock::now();
  std::span<const float> logits = session.prefill(prompt, options.stop);
  result.prefill_seconds = seconds_since(start);
  if (logits.empty()) {
    result.finish_reason = FinishReason::interrupted;
    return result;
  }

  Sampler sampler(options.sampling, static_cast<int64_t>(logits.size()));
  for (int32_t token : session.tokens()) sampler.accept(token);
  start = Clock::now();
  TokenStream stream(session, sampler);
  std::optional<int32_t> next;
  while (static_cast<int64_t>(result.tokens.size()) < options.max_new_tokens) {
    if (options.stop != nullptr && *options.stop) {
      result.finish_reason = FinishReason::interrupted;
      break;
    }
    const int32_t token = next ? *next : sampler.sample(logits);
    if (std::ranges::find(options.stop_tokens, token) != options.stop_tokens.end()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    result.tokens.push_back(token);
    sampler.accept(token);
    if (decoder) show(filter.push(decoder->push(token)));
    if (filter.stopped()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    const int64_t num_wanted = options.max_new_tokens - static_cast<int64_t>(result.tokens.size());
    if (num_wanted == 0 || stream.length() == session.max_len()) break;
    next = stream.next(token, num_wanted);
    result.decode_steps++;
    result.bytes_per_token += static_cast<double>(session.bytes_per_token(stream.length()));
  }
  result.decode_seconds = seconds_since(start);
  if (result.decode_steps > 0) result.bytes_per_token /= static_cast<double>(result.decode_steps);
  if (decoder && !filter.stopped()) {
    show(filter.push(decoder->finish()));
    show(filter.finish());
  }
  return result;
}

}  // namespace nibble
