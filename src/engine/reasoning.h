// Telling a model's thinking from its answer. Both come as one text; what parts them is known from the chat template:
//
//   tags      thinking stands between two tags, <think> and </think> or the like, before the answer. A template may
//             write the first tag itself, at the end of the prompt.
//   channels  gpt-oss: each message has a header that names its channel, as in
//             <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace nibble {

struct ThinkingStyle {
  enum class Kind : uint8_t { none, tags, channels } kind = Kind::none;
  std::string open, close;  // of Kind::tags

  // What a template's source tells: the tags or channels that it names.
  static ThinkingStyle of_template(std::string_view source);
};

// Takes the text of an answer in pieces and says of each part, as soon as it is certain, which of the two it is. Tags,
// headers, and space around them belong to neither.
class ThinkingSplitter {
 public:
  using OnText = std::function<void(std::string_view text)>;

  // `prompt` is the text before the answer: it ends with the first tag if the template wrote it.
  ThinkingSplitter(ThinkingStyle style, std::string_view prompt, OnText on_thinking, OnText on_content);

  void push(std::string_view text);
  void finish();

  const std::string& thinking() const { return thinking_; }
  const std::string& content() const { return content_; }
  bool is_thinking() const { return state_ == State::thinking; }

 private:
  enum class State : uint8_t { undecided, header, thinking, content, between };

  void show(State kind, std::string_view text);
  bool step_tags();
  bool step_channels();
  bool show_until(std::string_view mark, State next);

  ThinkingStyle style_;
  OnText on_thinking_, on_content_;
  State state_;
  std::string held_;   // not yet shown
  std::string space_;  // white space after thinking or content, shown once more of it comes
  std::string thinking_, content_;
};

}  // namespace nibble
