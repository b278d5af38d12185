#include "engine/reasoning.h"

#include <algorithm>
#include <array>
#include <utility>

namespace nibble {

namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kChannel = "<|channel|>", kMessage = "<|message|>", kEnd = "<|end|>";

// Pairs that published templates have. A template that names none has a model that does not think.
constexpr std::array kTags = {std::pair{"<think>", "</think>"}, std::pair{"[THINK]", "[/THINK]"},
                              std::pair{"<seed:think>", "</seed:think>"},
                              std::pair{"<|START_THINKING|>", "<|END_THINKING|>"}};

std::string_view without_space_after(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kSpace) + 1);  // npos + 1 is 0
}

// How many characters at the end of `text` may be the beginning of `mark`.
size_t possible_beginning(std::string_view text, std::string_view mark) {
  size_t length = std::min(text.size(), mark.size() - 1);
  while (length > 0 && !text.ends_with(mark.substr(0, length))) length--;
  return length;
}

}  // namespace

ThinkingStyle ThinkingStyle::of_template(std::string_view source) {
  const auto names = [&](std::string_view text) { return source.find(text) != std::string_view::npos; };
  if (names(kChannel) && names("analysis")) return {Kind::channels, {}, {}};
  for (const auto& [open, close] : kTags)
    if (names(open) || names(close)) return {Kind::tags, open, close};
  return {};
}

ThinkingSplitter::ThinkingSplitter(ThinkingStyle style, std::string_view prompt, OnText on_thinking, OnText on_content)
    : style_(std::move(style)), on_thinking_(std::move(on_thinking)), on_content_(std::move(on_content)) {
  switch (style_.kind) {
    case ThinkingStyle::Kind::none: state_ = State::content; break;
    case ThinkingStyle::Kind::tags:
      state_ = without_space_after(prompt).ends_with(style_.open) ? State::thinking : State::undecided;
      break;
    case ThinkingStyle::Kind::channels: state_ = State::header; break;
  }
}

// Space at either end of a part is left out, but for answers of models that do not think: they are shown as they come.
void ThinkingSplitter::show(State kind, std::string_view text) {
  std::string& all = kind == State::thinking ? thinking_ : content_;
  const OnText& hear = kind == State::thinking ? on_thinking_ : on_content_;
  std::string shown;
  if (style_.kind == ThinkingStyle::Kind::none) {
    shown = text;
  } else {
    if (all.empty()) text.remove_prefix(std::min(text.size(), text.find_first_not_of(kSpace)));
    const std::string_view body = without_space_after(text);
    if (!body.empty()) shown = std::exchange(space_, {}) + std::string(body);
    space_ += text.substr(body.size());
  }
  if (shown.empty()) return;
  all += shown;
  if (hear) hear(shown);
}

// Shows what is held as far as `mark`, whose end begins the state `next`. False if the mark is not there yet.
bool ThinkingSplitter::show_until(std::string_view mark, State next) {
  const size_t at = held_.find(mark);
  if (at == std::string::npos) {
    const size_t certain = held_.size() - possible_beginning(held_, mark);
    show(state_, std::string_view(held_).substr(0, certain));
    held_.erase(0, certain);
    return false;
  }
  show(state_, std::string_view(held_).substr(0, at));
  held_.erase(0, at + mark.size());
  space_.clear();
  state_ = next;
  return true;
}

bool ThinkingSplitter::step_tags() {
  switch (state_) {
    case State::undecided: {  // a tag counts only before anything else: later on it is text about tags
      const size_t first = held_.find_first_not_of(kSpace);
      if (first == std::string::npos) return false;
      const std::string_view text = std::string_view(held_).substr(first);
      if (text.starts_with(style_.open)) {
        held_.erase(0, first + style_.open.size());
        state_ = State::thinking;
      } else if (std::string_view(style_.open).starts_with(text)) {
        return false;
      } else {
        state_ = State::content;
      }
      return true;
    }
    case State::thinking: return show_until(style_.close, State::content);
    default: show(State::content, std::exchange(held_, {})); return false;
  }
}

bool ThinkingSplitter::step_channels() {
  switch (state_) {
    case State::thinking:
    case State::content: return show_until(kEnd, State::between);
    default: {
      const size_t end = held_.find(kMessage);
      if (end == std::string::npos) return false;
      const std::string_view header = std::string_view(held_).substr(0, end);
      const size_t channel = header.find(kChannel);
      const bool thinks =
          channel != std::string_view::npos && header.substr(channel + kChannel.size()).starts_with("analysis");
      held_.erase(0, end + kMessage.size());
      state_ = thinks ? State::thinking : State::content;
      if (std::string& earlier = thinks ? thinking_ : content_; !earlier.empty()) space_ = "\n\n";
      return true;
    }
  }
}

void ThinkingSplitter::push(std::string_view text) {
  held_ += text;
  if (style_.kind == ThinkingStyle::Kind::none)
    show(State::content, std::exchange(held_, {}));
  else if (style_.kind == ThinkingStyle::Kind::tags)
    while (step_tags()) {}
  else
    while (step_channels()) {}
}

// What is held may be half a tag, which is text then; half a header is not.
void ThinkingSplitter::finish() {
  const bool is_header = style_.kind == ThinkingStyle::Kind::channels &&
                         (state_ == State::between || (state_ == State::header && held_.starts_with("<|")));
  if (!is_header) show(state_ == State::thinking ? State::thinking : State::content, held_);
  held_.clear();
  space_.clear();
}

}  // namespace nibble
