// Text as Python's str treats it: by code points, with Unicode's white space.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

// str.isspace for one character: Unicode's white space and the four separators U+001C to U+001F.
bool is_space(char32_t c);

inline bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
std::string_view strip(std::string_view text);

// Strips the characters of `set` instead.
std::string_view strip_left(std::string_view text, std::string_view set);
std::string_view strip_right(std::string_view text, std::string_view set);

// The value of a string literal between its quotes: \n, \x41, \u00e9 and so on.
std::string unescape(std::string_view literal);

size_t count_characters(std::string_view text);

// Where each character begins, and the end of the text.
std::vector<size_t> character_offsets(std::string_view text);

std::string replace(std::string_view text, std::string_view old, std::string_view fresh, int64_t max_count = -1);

// str.split. Without a separator, at runs of white space. A negative max_count is no limit.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t max_count);
std::vector<std::string_view> split_at_space(std::string_view text, int64_t max_count);
std::vector<std::string_view> split_at_space_from_right(std::string_view text, int64_t max_count);
std::vector<std::string_view> split_from_right(std::string_view text, std::string_view separator, int64_t max_count);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace nibble::jinja
