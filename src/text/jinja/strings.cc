#include "text/jinja/strings.h"

#include <algorithm>
#include <charconv>

#include "text/jinja/value.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

char32_t character_at(std::string_view text, size_t at) { return read_utf8(text, at).code_point; }

}  // namespace

bool is_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

std::string_view strip_left(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && is_space(character_at(text, at))) at += read_utf8(text, at).num_bytes;
  return text.substr(at);
}

std::string_view strip_right(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t before = utf8_before(text, end);
    if (!is_space(character_at(text, before))) break;
    end = before;
  }
  return text.substr(0, end);
}

std::string_view strip(std::string_view text) { return strip_left(strip_right(text)); }

std::string_view strip_left(std::string_view text, std::string_view set) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t num_bytes = read_utf8(text, at).num_bytes;
    if (set.find(text.substr(at, num_bytes)) == std::string_view::npos) break;
    at += num_bytes;
  }
  return text.substr(at);
}

std::string_view strip_right(std::string_view text, std::string_view set) {
  size_t end = text.size();
  while (end > 0) {
    const size_t before = utf8_before(text, end);
    if (set.find(text.substr(before, end - before)) == std::string_view::npos) break;
    end = before;
  }
  return text.substr(0, end);
}

std::string unescape(std::string_view literal) {
  std::string out;
  for (size_t i = 0; i < literal.size(); i++) {
    if (literal[i] != '\\' || i + 1 >= literal.size()) {
      out += literal[i];
      continue;
    }
    const char c = literal[++i];
    static constexpr std::string_view letters = "abfnrtv", codes("\a\b\f\n\r\t\v");
    const size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (const size_t at = letters.find(c); at != std::string_view::npos) {
      out += codes[at];
    } else if (c == '\n') {  // a line that goes on
    } else if (c == '\\' || c == '\'' || c == '"') {
      out += c;
    } else if (c >= '0' && c <= '7') {  // up to three octal digits
      uint32_t code_point = 0;
      size_t end = i;
      while (end < literal.size() && end < i + 3 && literal[end] >= '0' && literal[end] <= '7')
        code_point = code_point * 8 + static_cast<uint32_t>(literal[end++] - '0');
      append_utf8(out, code_point);
      i = end - 1;
    } else if (num_digits > 0) {
      uint32_t code_point = 0;
      const char* digits = literal.data() + i + 1;
      if (i + num_digits >= literal.size() ||
          std::from_chars(digits, digits + num_digits, code_point, 16).ptr != digits + num_digits ||
          code_point > 0x10FFFF) {
        fail("a string has '\\{}' without the {} hexadecimal digits of a character", c, num_digits);
      }
      append_utf8(out, code_point >= 0xD800 && code_point < 0xE000 ? kReplacementCharacter : code_point);
      i += num_digits;
    } else if (c == 'N') {
      fail("a string names a character with '\\N', which is not supported; write the character itself");
    } else if (static_cast<uint8_t>(c) >= 0x80) {  // Jinja shows what follows by its code
      const Utf8Step step = read_utf8(literal, i);
      const auto code = static_cast<uint32_t>(step.code_point);
      out += code < 0x100     ? fmt::format("\\x{:02x}", code)
             : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                              : fmt::format("\\U{:08x}", code);
      i += step.num_bytes - 1;
    } else {
      out += {'\\', c};
    }
  }
  return out;
}

size_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

std::vector<size_t> character_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t at = 0; at < text.size(); at += read_utf8(text, at).num_bytes) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

std::string replace(std::string_view text, std::string_view old, std::string_view fresh, int64_t max_count) {
  std::string out;
  size_t at = 0;
  for (int64_t count = 0; count != max_count; count++) {
    if (old.empty()) {  // between all characters, and at both ends
      out += fresh;
      if (at >= text.size()) break;
      const size_t num_bytes = read_utf8(text, at).num_bytes;
      out += text.substr(at, num_bytes);
      at += num_bytes;
      continue;
    }
    const size_t found = text.find(old, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += fresh;
    at = found + old.size();
  }
  return out += text.substr(at);
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t max_count) {
  std::vector<std::string_view> parts;
  size_t at = 0, found;
  while (static_cast<int64_t>(parts.size()) != max_count &&
         (found = text.find(separator, at)) != std::string_view::npos) {
    parts.push_back(text.substr(at, found - at));
    at = found + separator.size();
  }
  parts.push_back(text.substr(at));
  return parts;
}

std::vector<std::string_view> split_at_space(std::string_view text, int64_t max_count) {
  std::vector<std::string_view> parts;
  text = strip_left(text);
  while (!text.empty()) {
    if (static_cast<int64_t>(parts.size()) == max_count) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(character_at(text, end))) end += read_utf8(text, end).num_bytes;
    parts.push_back(text.substr(0, end));
    text = strip_left(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> split_at_space_from_right(std::string_view text, int64_t max_count) {
  std::vector<std::string_view> parts;
  text = strip_right(text);
  while (!text.empty()) {
    if (static_cast<int64_t>(parts.size()) == max_count) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0 && !is_space(character_at(text, utf8_before(text, begin)))) begin = utf8_before(text, begin);
    parts.push_back(text.substr(begin));
    text = strip_right(text.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_from_right(std::string_view text, std::string_view separator, int64_t max_count) {
  std::vector<std::string_view> parts;
  size_t found;
  while (static_cast<int64_t>(parts.size()) != max_count && (found = text.rfind(separator)) != std::string_view::npos) {
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    const char32_t c = step.code_point;
    const size_t end = at;
    at += step.num_bytes;
    const bool ends_line =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends_line) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') at++;
    lines.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

}  // namespace nibble::jinja
