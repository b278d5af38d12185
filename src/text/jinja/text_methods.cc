// Methods of strings, as in Python.
#include <algorithm>

#include <utf8proc.h>

#include "text/jinja/case.h"
#include "text/jinja/field_format.h"
#include "text/jinja/format.h"
#include "text/jinja/markup.h"
#include "text/jinja/methods.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

const std::string& text_of(const Value& value, std::string_view method) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_text()) fail("{}: a string expected, not {}", method, type_name(value));
  return value.text();
}

Value list_of(const std::vector<std::string_view>& parts, Budget& budget) {
  budget.charge(parts.size());
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.emplace_back(part);
  return items;
}

template <bool left, bool right>
Value strip_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const Value set = arguments.bind("strip", {"/chars"})[0];
  if (is_given(set)) budget.charge_text(self.text().size() * text_of(set, "strip").size());
  std::string_view text = self.text();
  if (left) text = is_given(set) ? strip_left(text, text_of(set, "strip")) : strip_left(text);
  if (right) text = is_given(set) ? strip_right(text, text_of(set, "strip")) : strip_right(text);
  return text;
}

template <bool from_right>
Value split_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("split", {"sep", "maxsplit"});
  const int64_t max_count = is_given(bound[1]) ? to_integer(bound[1], "split: maxsplit") : -1;
  if (!is_given(bound[0])) {
    return list_of((from_right ? split_at_space_from_right : split_at_space)(self.text(), max_count), budget);
  }
  const std::string& separator = text_of(bound[0], "split");
  if (separator.empty()) fail("split: the separator is empty");
  budget.charge_search(self.text().size(), separator.size());
  return list_of((from_right ? split_from_right : split)(self.text(), separator, max_count), budget);
}

// The part of a text that a method's start and end name, as slices do.
struct Part {
  std::string_view text;
  int64_t first;    // character that it begins with
  bool is_outside;  // it begins behind the end of the text, where not even an empty string is found
};

Part part_of(const Value& self, const Value& start, const Value& end, Budget& budget) {
  if (!is_given(start) && !is_given(end)) return {self.text(), 0, false};
  budget.charge_text(self.text().size());
  const auto offsets = character_offsets(self.text());
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  const auto clamp = [&](const Value& given, int64_t fallback) {
    const int64_t at = is_given(given) ? to_integer(given, "the part of a text") : fallback;
    return at < 0 ? std::max<int64_t>(at + size, 0) : at;
  };
  const int64_t first = clamp(start, 0), last = std::min(clamp(end, size), size);
  if (first > last) return {{}, first, true};
  return {std::string_view(self.text()).substr(offsets[first], offsets[last] - offsets[first]), first, false};
}

template <bool at_end>
Value affix_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind(at_end ? "endswith" : "startswith", {"/affix", "/start", "/end"}, 1);
  const Part part = part_of(self, bound[1], bound[2], budget);
  const auto matches = [&](const Value& one) {
    const std::string& text = text_of(one, "startswith");
    return !part.is_outside && (at_end ? part.text.ends_with(text) : part.text.starts_with(text));
  };
  if (bound[0].is_tuple()) return std::any_of(bound[0].items().begin(), bound[0].items().end(), matches);
  return matches(bound[0]);
}

Value replace_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("replace", {"/old", "/new", "/count"}, 2);
  const std::string &old = text_of(bound[0], "replace"), &fresh = text_of(bound[1], "replace");
  const size_t places = old.empty() ? self.text().size() + 1 : self.text().size() / old.size();
  if (fresh.size() > old.size() && places > (kMaxText - self.text().size()) / fresh.size()) {
    fail("replace: the text could grow beyond {} bytes", kMaxText);
  }
  budget.charge_search(self.text().size(), old.size());
  std::string text =
      replace(self.text(), old, fresh, arguments.positional.size() > 2 ? to_integer(bound[2], "replace: count") : -1);
  budget.charge_text(text.size());
  return text;
}

// Where `needle` is, counted in characters; -1 if nowhere.
template <bool from_right, bool must_be_there>
Value find_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("find", {"/sub", "/start", "/end"}, 1);
  const std::string& needle = text_of(bound[0], "find");
  const Part part = part_of(self, bound[1], bound[2], budget);
  budget.charge_search(part.text.size(), needle.size());
  const size_t at = from_right ? part.text.rfind(needle) : part.text.find(needle);
  if (at != std::string::npos && !part.is_outside)
    return part.first + static_cast<int64_t>(count_characters(part.text.substr(0, at)));
  if (must_be_there) fail("index: '{}' is not in the text", needle);
  return -1;
}

Value count_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("count", {"/sub", "/start", "/end"}, 1);
  const std::string& needle = text_of(bound[0], "count");
  const Part part = part_of(self, bound[1], bound[2], budget);
  if (part.is_outside) return 0;
  if (needle.empty()) return count_characters(part.text) + 1;
  budget.charge_search(part.text.size(), needle.size());
  int64_t count = 0;
  for (size_t at = 0; (at = part.text.find(needle, at)) != std::string::npos; at += needle.size()) count++;
  return count;
}

template <std::string (*map)(std::string_view)>
Value case_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("upper", {});
  budget.charge_text(4 * self.text().size());
  return map(self.text());
}

bool is_decimal(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND; }

// Decimal digits, and those that stand above, below or in circles.
bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247C) ||
         (c >= 0x2488 && c <= 0x2490);
}

bool is_numeric(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return is_digit(c) || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool is_letter_or_number(char32_t c) { return is_letter(c) || is_numeric(c); }

// Whether the text has characters and all are of a kind.
template <bool (*is_kind)(char32_t)>
Value all_method(const Value& self, const Arguments& arguments, Budget&) {
  arguments.bind("isdigit", {});
  const std::string& text = self.text();
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    if (!is_kind(step.code_point)) return false;
    at += step.num_bytes;
  }
  return !text.empty();
}

template <bool (*is_kind)(std::string_view)>
Value whole_method(const Value& self, const Arguments& arguments, Budget&) {
  arguments.bind("isupper", {});
  return is_kind(self.text());
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

bool is_identifier(std::string_view text) {
  bool is_first = true;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    const char32_t c = step.code_point;
    if (!(c == '_' || is_letter(c) || (!is_first && is_word_character(c)))) return false;
    is_first = false;
    at += step.num_bytes;
  }
  return !text.empty();
}

bool all_printable(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    if (!is_printable(step.code_point)) return false;
    at += step.num_bytes;
  }
  return true;
}

Value join_method(const Value& self, const Arguments& arguments, Budget& budget) {
  std::string text;
  bool is_first = true;
  for (const Value& item : iterate(arguments.bind("join", {"/iterable"}, 1)[0], budget)) {
    if (!is_first) text += self.text();
    is_first = false;
    text += self.is_markup() ? escaped_text(item, budget) : text_of(item, "join");
    budget.charge_text(self.text().size() + (item.is_text() ? item.text().size() : 0));
    if (text.size() > kMaxText) fail("join: the text grows beyond {} bytes", kMaxText);
  }
  return text;
}

Value split_lines_method(const Value& self, const Arguments& arguments, Budget& budget) {
  return list_of(split_lines(self.text(), is_true(arguments.bind("splitlines", {"keepends"})[0])), budget);
}

template <bool at_end>
Value remove_method(const Value& self, const Arguments& arguments, Budget&) {
  const std::string& affix = text_of(arguments.bind("removeprefix", {"/affix"}, 1)[0], "removeprefix");
  const std::string& text = self.text();
  if (!(at_end ? text.ends_with(affix) : text.starts_with(affix))) return self;
  return at_end ? text.substr(0, text.size() - affix.size()) : text.substr(affix.size());
}

template <bool from_right>
Value partition_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const std::string& separator = text_of(arguments.bind("partition", {"/sep"}, 1)[0], "partition");
  if (separator.empty()) fail("partition: the separator is empty");
  const std::string& text = self.text();
  budget.charge_search(text.size(), separator.size());
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return {from_right ? std::vector<Value>{"", "", self} : std::vector<Value>{self, "", ""}, SequenceKind::tuple};
  }
  return {{text.substr(0, at), separator, text.substr(at + separator.size())}, SequenceKind::tuple};
}

template <int side>  // where the text goes: -1 left, 0 centre, 1 right
Value pad_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("center", {"/width", "/fillchar"}, 1);
  const int64_t width = to_integer(bound[0], "center: width"), size = length(self);
  const std::string fill = arguments.positional.size() > 1 ? text_of(bound[1], "center") : " ";
  if (count_characters(fill) != 1) fail("center: '{}' to fill with, one character expected", fill);
  if (width <= size) return self;
  if (width > 1'000'000) fail("a width of {}, at most 1000000 expected", width);
  budget.charge_text(width * fill.size());
  const int64_t missing = width - size;
  const int64_t before = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & width & 1);
  std::string text;
  for (int64_t i = 0; i < before; i++) text += fill;
  text += self.text();
  for (int64_t i = before; i < missing; i++) text += fill;
  return text;
}

Value zfill_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const int64_t width = to_integer(arguments.bind("zfill", {"/width"}, 1)[0], "zfill");
  if (width <= length(self)) return self;
  const int64_t missing = width - length(self);
  if (width > 1'000'000) fail("zfill: a width of {}, at most 1000000 expected", width);
  budget.charge_text(width);
  std::string text = self.text();
  const bool has_sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  return text.insert(has_sign ? 1 : 0, missing, '0');
}

Value format_method(const Value& self, const Arguments& arguments, Budget& budget) {
  return format_fields(self, arguments, budget);
}

Value format_map_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const Value map = arguments.bind("format_map", {"/map"}, 1)[0];
  if (!map.is_dict()) fail("format_map: a dict expected, not {}", type_name(map));
  Arguments named;
  for (const auto& [key, value] : map.dict().items)
    if (key.is_text()) named.named.emplace_back(key.text(), value);
  return format_fields(self, named, budget);
}

Value expand_tabs_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const Value given = arguments.bind("expandtabs", {"tabsize"})[0];
  const int64_t size = given.is_undefined() ? 8 : to_integer(given, "expandtabs");
  if (size > 1000) fail("expandtabs: a tab of {}, at most 1000 expected", size);
  std::string text;
  int64_t column = 0;
  for (const char c : self.text()) {
    if (c == '\t') {
      const int64_t count = size > 0 ? size - column % size : 0;
      budget.charge_text(count);
      text.append(count, ' ');
      column += count;
    } else {
      text += c;
      column = c == '\n' || c == '\r' ? 0 : column + ((static_cast<uint8_t>(c) & 0xC0) == 0x80 ? 0 : 1);
    }
    if (text.size() > kMaxText) fail("expandtabs: the text grows beyond {} bytes", kMaxText);
  }
  return text;
}

Value unsupported_method(const Value&, const Arguments&, Budget&) {
  fail("encode, maketrans and translate are not supported");
}

}  // namespace

const MethodTable& text_methods() {
  static const MethodTable table = {
      {"strip", strip_method<true, true>},
      {"lstrip", strip_method<true, false>},
      {"rstrip", strip_method<false, true>},
      {"split", split_method<false>},
      {"rsplit", split_method<true>},
      {"splitlines", split_lines_method},
      {"startswith", affix_method<false>},
      {"endswith", affix_method<true>},
      {"removeprefix", remove_method<false>},
      {"removesuffix", remove_method<true>},
      {"partition", partition_method<false>},
      {"rpartition", partition_method<true>},
      {"replace", replace_method},
      {"find", find_method<false, false>},
      {"rfind", find_method<true, false>},
      {"index", find_method<false, true>},
      {"rindex", find_method<true, true>},
      {"count", count_method},
      {"upper", case_method<to_upper>},
      {"lower", case_method<to_lower>},
      {"casefold", case_method<case_fold>},
      {"swapcase", case_method<swap_case>},
      {"capitalize", case_method<capitalize>},
      {"title", case_method<to_title>},
      {"isupper", whole_method<is_upper>},
      {"islower", whole_method<is_lower>},
      {"isdigit", all_method<is_digit>},
      {"isdecimal", all_method<is_decimal>},
      {"isnumeric", all_method<is_numeric>},
      {"isalpha", all_method<is_letter>},
      {"isalnum", all_method<is_letter_or_number>},
      {"isspace", all_method<is_space>},
      {"join", join_method},
      {"ljust", pad_method<-1>},
      {"rjust", pad_method<1>},
      {"center", pad_method<0>},
      {"zfill", zfill_method},
      {"format", format_method},
      {"format_map", format_map_method},
      {"expandtabs", expand_tabs_method},
      {"istitle", whole_method<is_title>},
      {"isascii", whole_method<is_ascii>},
      {"isidentifier", whole_method<is_identifier>},
      {"isprintable", whole_method<all_printable>},
      {"encode", unsupported_method},
      {"maketrans", unsupported_method},
      {"translate", unsupported_method},
  };
  return table;
}

}  // namespace nibble::jinja
