// UTF-8 by code points: reading it, writing it, and what becomes of bytes that are not UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nibble {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

enum class Utf8State { valid, invalid, truncated };  // truncated: more bytes could still make it valid

// One step through UTF-8. What is not valid is as long as the longest start of a sequence in it, so that replacing each
// such step by U+FFFD does what Unicode recommends and what Python's errors="replace" does.
struct Utf8Step {
  char32_t code_point;  // U+FFFD unless valid
  size_t num_bytes;     // at least 1
  Utf8State state;
};

// The step that begins at `at`, which is before the end of `text`.
Utf8Step read_utf8(std::string_view text, size_t at);

void append_utf8(std::string& text, char32_t code_point);

bool is_utf8(std::string_view text);

// Throws InputError with `name` and the first byte that is not UTF-8, if there is one.
void expect_utf8(std::string_view text, std::string_view name);

// `text` with every invalid sequence replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

// How many bytes at the end of `text` begin a sequence that is not complete yet: 0 to 3.
size_t incomplete_utf8_tail(std::string_view text);

// The first byte of the code point that ends before `end`; `text` is valid UTF-8 and 0 < end <= text.size().
size_t utf8_before(std::string_view text, size_t end);

// Unicode's White_Space.
bool is_white_space(char32_t code_point);

// Letters, marks, decimal digits, connectors and joiners, the \w of Unicode regular expressions.
bool is_word_character(char32_t code_point);

}  // namespace nibble
