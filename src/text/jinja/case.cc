#include "text/jinja/case.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <utf8proc.h>

#include "text/jinja/special_casing.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

enum class Case { upper, lower, title };

constexpr char32_t kSigma = 0x3A3, kFinalSigma = 0x3C2, kDottedI = 0x130;

utf8proc_int32_t code_of(char32_t c) { return static_cast<utf8proc_int32_t>(c); }

bool is_upper_letter(char32_t c) { return utf8proc_isupper(code_of(c)) != 0; }
bool is_lower_letter(char32_t c) { return utf8proc_islower(code_of(c)) != 0; }
bool is_title_letter(char32_t c) { return utf8proc_category(code_of(c)) == UTF8PROC_CATEGORY_LT; }
bool is_cased(char32_t c) { return is_upper_letter(c) || is_lower_letter(c) || is_title_letter(c); }

// Marks and points that a word may have inside without ending.
bool is_case_ignorable(char32_t c) {
  switch (utf8proc_category(code_of(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019;
  }
}

// Whether a cased letter stands before `begin`, and none behind `end`.
bool ends_word(std::string_view text, size_t begin, size_t end) {
  bool has_before = false;
  while (begin > 0) {
    begin = utf8_before(text, begin);
    const char32_t c = read_utf8(text, begin).code_point;
    if (is_case_ignorable(c)) continue;
    has_before = is_cased(c);
    break;
  }
  while (has_before && end < text.size()) {
    const Utf8Step step = read_utf8(text, end);
    end += step.num_bytes;
    if (is_case_ignorable(step.code_point)) continue;
    return !is_cased(step.code_point);
  }
  return has_before;
}

void append_case(std::string& out, std::string_view text, size_t at, const Utf8Step& step, Case letter_case) {
  const char32_t c = step.code_point;
  if (c < 0x80) {
    const bool is_small = c >= 'a' && c <= 'z', is_capital = c >= 'A' && c <= 'Z';
    const bool turns = letter_case == Case::lower ? is_capital : is_small;
    out += static_cast<char>(turns ? c ^ 0x20 : c);
  } else if (letter_case == Case::lower) {
    if (c == kSigma) {
      append_utf8(out, ends_word(text, at, at + step.num_bytes) ? kFinalSigma : char32_t{0x3C3});
    } else if (c == kDottedI) {
      out += "i\u0307";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(code_of(c))));
    }
  } else {
    const auto* special =
        std::lower_bound(std::begin(kSpecialCases), std::end(kSpecialCases), c,
                         [](const SpecialCase& one, char32_t value) { return one.character < value; });
    if (special != std::end(kSpecialCases) && special->character == c) {
      out += letter_case == Case::upper ? special->upper : special->title;
    } else {
      append_utf8(out, static_cast<char32_t>(letter_case == Case::upper ? utf8proc_toupper(code_of(c))
                                                                        : utf8proc_totitle(code_of(c))));
    }
  }
}

// Maps each character to the case that `choose` names for it.
template <class Choose>
std::string map_case(std::string_view text, Choose choose) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    append_case(out, text, at, step, choose(step.code_point));
    at += step.num_bytes;
  }
  return out;
}

template <class Visit>
void for_each_character(std::string_view text, Visit visit) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    visit(step.code_point);
    at += step.num_bytes;
  }
}

}  // namespace

bool is_letter(char32_t c) {
  switch (utf8proc_category(code_of(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return true;
    default: return false;
  }
}

std::string to_upper(std::string_view text) {
  return map_case(text, [](char32_t) { return Case::upper; });
}

std::string to_lower(std::string_view text) {
  return map_case(text, [](char32_t) { return Case::lower; });
}

std::string case_fold(std::string_view text) {
  utf8proc_uint8_t* folded = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &folded, UTF8PROC_CASEFOLD);
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(folded, std::free);
  return size < 0 ? to_lower(text) : std::string(reinterpret_cast<const char*>(folded), static_cast<size_t>(size));
}

std::string capitalize(std::string_view text) {
  return map_case(
      text, [is_first = true](char32_t) mutable { return std::exchange(is_first, false) ? Case::title : Case::lower; });
}

std::string to_title(std::string_view text) {
  return map_case(text, [in_word = false](char32_t c) mutable {
    return std::exchange(in_word, is_cased(c)) ? Case::lower : Case::title;
  });
}

std::string swap_case(std::string_view text) {
  return map_case(text, [](char32_t c) { return is_upper_letter(c) ? Case::lower : Case::upper; });
}

bool is_upper(std::string_view text) {
  bool has_upper = false, has_other = false;
  for_each_character(text, [&](char32_t c) {
    has_upper |= is_upper_letter(c);
    has_other |= is_lower_letter(c) || is_title_letter(c);
  });
  return has_upper && !has_other;
}

bool is_lower(std::string_view text) {
  bool has_lower = false, has_other = false;
  for_each_character(text, [&](char32_t c) {
    has_lower |= is_lower_letter(c);
    has_other |= is_upper_letter(c) || is_title_letter(c);
  });
  return has_lower && !has_other;
}

bool is_title(std::string_view text) {
  bool is_title = true, has_cased = false, in_word = false;
  for_each_character(text, [&](char32_t c) {
    if (is_upper_letter(c) || is_title_letter(c)) {
      is_title &= !in_word;
    } else if (is_lower_letter(c)) {
      is_title &= in_word;
    }
    in_word = is_cased(c);
    has_cased |= in_word;
  });
  return is_title && has_cased;
}

}  // namespace nibble::jinja
