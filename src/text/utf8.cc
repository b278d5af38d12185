#include "text/utf8.h"

#include <cstdint>
#include <cstring>

#include <utf8proc.h>

#include "base/error.h"

namespace nibble {

Utf8Step read_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(at);
  if (first < 0x80) return {first, 1, Utf8State::valid};
  // The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  size_t num_bytes;
  uint8_t low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    num_bytes = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    num_bytes = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    num_bytes = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return {kReplacementCharacter, 1, Utf8State::invalid};
  }
  char32_t code_point = first & (0xFF >> (num_bytes + 1));
  for (size_t i = 1; i < num_bytes; i++) {
    if (at + i >= text.size()) return {kReplacementCharacter, i, Utf8State::truncated};
    if (byte(at + i) < low || byte(at + i) > high) return {kReplacementCharacter, i, Utf8State::invalid};
    code_point = code_point << 6 | (byte(at + i) & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return {code_point, num_bytes, Utf8State::valid};
}

void append_utf8(std::string& text, char32_t code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0 | code_point >> 6);
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0 | code_point >> 12);
    text += static_cast<char>(0x80 | (code_point >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | code_point >> 18);
    text += static_cast<char>(0x80 | (code_point >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (code_point >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  }
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    uint64_t eight;
    if (at + 8 <= text.size() && (std::memcpy(&eight, text.data() + at, 8), (eight & 0x8080808080808080u) == 0)) {
      at += 8;
      continue;
    }
    const Utf8Step step = read_utf8(text, at);
    if (step.state != Utf8State::valid) return false;
    at += step.num_bytes;
  }
  return true;
}

void expect_utf8(std::string_view text, std::string_view name) {
  if (is_utf8(text)) return;
  size_t at = 0;
  for (Utf8Step step; (step = read_utf8(text, at)).state == Utf8State::valid;) at += step.num_bytes;
  throw_input_error("{}: byte {} is 0x{:02x}, which is not UTF-8 there; give it in UTF-8", name, at,
                    static_cast<uint8_t>(text[at]));
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    if (step.state == Utf8State::valid) {
      valid.append(text, at, step.num_bytes);
    } else {
      append_utf8(valid, kReplacementCharacter);
    }
    at += step.num_bytes;
  }
  return valid;
}

size_t incomplete_utf8_tail(std::string_view text) {
  for (size_t tail = 1; tail <= 3 && tail <= text.size(); tail++) {
    const size_t at = text.size() - tail;
    if ((static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) continue;
    const Utf8Step step = read_utf8(text, at);
    return step.state == Utf8State::truncated && step.num_bytes == tail ? tail : 0;
  }
  return 0;
}

size_t utf8_before(std::string_view text, size_t end) {
  do end--;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word_character(char32_t c) {
  const bool is_circled = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                          (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);  // letters, too
  if (is_circled || c == 0x200C || c == 0x200D) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

}  // namespace nibble
