// Letter case as Python's str has it, with the letters that become two or three.
#pragma once

#include <string>
#include <string_view>

namespace nibble::jinja {

bool is_letter(char32_t c);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);    // a sigma that ends a word has a form of its own
std::string case_fold(std::string_view text);   // for comparing
std::string capitalize(std::string_view text);  // first character in title form, the others lower
std::string to_title(std::string_view text);    // so for every run of cased letters
std::string swap_case(std::string_view text);

// Whether the text has a cased letter, and all such are upper (lower).
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);
bool is_title(std::string_view text);

}  // namespace nibble::jinja
