// Methods of strings, lists and dicts, as in Python.
#include <algorithm>
#include <unordered_map>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

// A method gets the value that it is called on, the call's arguments, and the budget to charge.
using Method = Value (*)(const Value& self, const Arguments& arguments, Budget& budget);
using MethodTable = std::unordered_map<std::string, Method>;

bool is_given(const Value& value) { return !value.is_undefined() && !value.is_none(); }

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
Value strip_method(const Value& self, const Arguments& arguments, Budget&) {
  const Value set = arguments.bind("strip", {"chars"})[0];
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
    if (from_right && max_count >= 0) fail("rsplit: a maximum without a separator is not supported");
    return list_of(split_at_space(self.text(), max_count), budget);
  }
  const std::string& separator = text_of(bound[0], "split");
  if (separator.empty()) fail("split: the separator is empty");
  return list_of((from_right ? split_from_right : split)(self.text(), separator, max_count), budget);
}

template <bool at_end>
Value affix_method(const Value& self, const Arguments& arguments, Budget&) {
  const Value affix = arguments.bind(at_end ? "endswith" : "startswith", {"affix"})[0];
  const auto matches = [&](const Value& one) {
    const std::string& text = text_of(one, "startswith");
    return at_end ? self.text().ends_with(text) : self.text().starts_with(text);
  };
  if (affix.is_list()) return std::any_of(affix.items().begin(), affix.items().end(), matches);
  return matches(affix);
}

Value replace_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("replace", {"old", "new", "count"});
  const std::string &old = text_of(bound[0], "replace"), &fresh = text_of(bound[1], "replace");
  const size_t places = old.empty() ? self.text().size() + 1 : self.text().size() / old.size();
  budget.charge_text(self.text().size());
  if (fresh.size() > old.size() && places > (kMaxText - self.text().size()) / fresh.size()) {
    fail("replace: the text could grow beyond {} bytes", kMaxText);
  }
  std::string text = replace(self.text(), old, fresh, is_given(bound[2]) ? to_integer(bound[2], "replace: count") : -1);
  budget.charge_text(text.size());
  return text;
}

// Where `needle` is, counted in characters; -1 if nowhere.
template <bool from_right, bool must_be_there>
Value find_method(const Value& self, const Arguments& arguments, Budget&) {
  const std::string& needle = text_of(arguments.bind("find", {"sub"})[0], "find");
  const size_t at = from_right ? self.text().rfind(needle) : self.text().find(needle);
  if (at != std::string::npos) return count_characters(std::string_view(self.text()).substr(0, at));
  if (must_be_there) fail("index: '{}' is not in the text", needle);
  return -1;
}

Value count_method(const Value& self, const Arguments& arguments, Budget&) {
  const std::string& needle = text_of(arguments.bind("count", {"sub"})[0], "count");
  if (needle.empty()) return count_characters(self.text()) + 1;
  int64_t count = 0;
  for (size_t at = 0; (at = self.text().find(needle, at)) != std::string::npos; at += needle.size()) count++;
  return count;
}

template <std::string (*map)(std::string_view)>
Value case_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("upper", {});
  budget.charge_text(4 * self.text().size());
  return map(self.text());
}

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_letter_or_digit(char32_t c) { return is_letter(c) || is_digit(c); }

// Whether the text has characters and all are of a kind.
template <bool (*is_kind)(char32_t)>
Value all_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("isdigit", {});
  budget.charge_text(self.text().size());
  const std::string& text = self.text();
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    if (!is_kind(step.code_point)) return false;
    at += step.num_bytes;
  }
  return !text.empty();
}

template <std::string (*map)(std::string_view), std::string (*other)(std::string_view)>
Value is_case_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("isupper", {});
  budget.charge_text(self.text().size());
  return map(self.text()) == self.text() && other(self.text()) != self.text();
}

Value join_method(const Value& self, const Arguments& arguments, Budget& budget) {
  std::string text;
  bool is_first = true;
  for (const Value& item : iterate(arguments.bind("join", {"iterable"})[0], budget)) {
    if (!is_first) text += self.text();
    is_first = false;
    text += text_of(item, "join");
    budget.charge_text(self.text().size() + item.text().size());
    if (text.size() > kMaxText) fail("join: the text grows beyond {} bytes", kMaxText);
  }
  return text;
}

Value split_lines_method(const Value& self, const Arguments& arguments, Budget& budget) {
  return list_of(split_lines(self.text(), is_true(arguments.bind("splitlines", {"keepends"})[0])), budget);
}

template <bool at_end>
Value remove_method(const Value& self, const Arguments& arguments, Budget&) {
  const std::string& affix = text_of(arguments.bind("removeprefix", {"affix"})[0], "removeprefix");
  const std::string& text = self.text();
  if (!(at_end ? text.ends_with(affix) : text.starts_with(affix))) return self;
  return at_end ? text.substr(0, text.size() - affix.size()) : text.substr(affix.size());
}

template <bool from_right>
Value partition_method(const Value& self, const Arguments& arguments, Budget&) {
  const std::string& separator = text_of(arguments.bind("partition", {"sep"})[0], "partition");
  if (separator.empty()) fail("partition: the separator is empty");
  const std::string& text = self.text();
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return {from_right ? std::vector<Value>{"", "", self} : std::vector<Value>{self, "", ""}, true};
  }
  return {{text.substr(0, at), separator, text.substr(at + separator.size())}, true};
}

template <int side>  // where the text goes: -1 left, 0 centre, 1 right
Value pad_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("center", {"width", "fillchar"});
  const int64_t width = to_integer(bound[0], "center: width"), size = length(self);
  const std::string fill = is_given(bound[1]) ? text_of(bound[1], "center") : " ";
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
  const int64_t width = to_integer(arguments.bind("zfill", {"width"})[0], "zfill");
  const int64_t missing = width - length(self);
  if (missing <= 0) return self;
  if (width > 1'000'000) fail("zfill: a width of {}, at most 1000000 expected", width);
  budget.charge_text(width);
  std::string text = self.text();
  const bool has_sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  return text.insert(has_sign ? 1 : 0, missing, '0');
}

// "{} {name} {0}": places without a format of their own.
Value format_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const std::string& format = self.text();
  std::string text;
  size_t used = 0;
  for (size_t i = 0; i < format.size(); i++) {
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      text += c;
      i++;
      continue;
    }
    if (c != '{') {
      text += c;
      continue;
    }
    const size_t end = format.find('}', i);
    if (end == std::string::npos) fail("format: '{{' without '}}'");
    const std::string place = format.substr(i + 1, end - i - 1);
    if (place.find_first_of(".[:!") != std::string::npos)
      fail("format: '{{{}}}' is not supported; only a name or a number is", place);
    const bool is_number = place.find_first_not_of("0123456789") == std::string::npos;
    if (is_number) {
      const size_t at = place.empty() ? used++ : place.size() > 4 ? SIZE_MAX : std::stoul(place);
      if (at >= arguments.positional.size())
        fail("format: '{{{}}}', but {} values", place, arguments.positional.size());
      text += to_text(arguments.positional[at], budget);
    } else {
      const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                      [&](const auto& entry) { return entry.first == place; });
      if (named == arguments.named.end()) fail("format: no value is called '{}'", place);
      text += to_text(named->second, budget);
    }
    budget.charge_text(text.size() / 16);
    if (text.size() > kMaxText) fail("format: the text grows beyond {} bytes", kMaxText);
    i = end;
  }
  return text;
}

Value items_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("items", {});
  budget.charge(self.dict().items.size());
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict().items) pairs.push_back(Value({key, value}, true));
  return pairs;
}

template <bool keys>
Value keys_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("keys", {});
  budget.charge(self.dict().items.size());
  std::vector<Value> list;
  for (const auto& [key, value] : self.dict().items) list.push_back(keys ? key : value);
  return list;
}

Value get_method(const Value& self, const Arguments& arguments, Budget&) {
  const auto bound = arguments.bind("get", {"key", "default"});
  if (const Value* found = self.dict().find(bound[0])) return *found;
  return bound[1].is_undefined() && arguments.positional.size() + arguments.named.size() < 2 ? Value(None{}) : bound[1];
}

Value copy_method(const Value& self, const Arguments&, Budget&) { return self; }

Value list_count_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const Value item = arguments.bind("count", {"value"})[0];
  int64_t count = 0;
  for (const Value& known : self.items()) count += are_equal(known, item, budget) ? 1 : 0;
  return count;
}

Value list_index_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const Value item = arguments.bind("index", {"value"})[0];
  for (size_t i = 0; i < self.items().size(); i++)
    if (are_equal(self.items()[i], item, budget)) return i;
  fail("index: the value is not in the list");
}

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
      {"casefold", case_method<to_lower>},
      {"capitalize", case_method<capitalize>},
      {"title", case_method<to_title>},
      {"isupper", is_case_method<to_upper, to_lower>},
      {"islower", is_case_method<to_lower, to_upper>},
      {"isdigit", all_method<is_digit>},
      {"isdecimal", all_method<is_digit>},
      {"isnumeric", all_method<is_digit>},
      {"isalpha", all_method<is_letter>},
      {"isalnum", all_method<is_letter_or_digit>},
      {"isspace", all_method<is_space>},
      {"join", join_method},
      {"ljust", pad_method<-1>},
      {"rjust", pad_method<1>},
      {"center", pad_method<0>},
      {"zfill", zfill_method},
      {"format", format_method},
  };
  return table;
}

const MethodTable& dict_methods() {
  static const MethodTable table = {
      {"items", items_method}, {"keys", keys_method<true>}, {"values", keys_method<false>},
      {"get", get_method},     {"copy", copy_method},
  };
  return table;
}

const MethodTable& list_methods() {
  static const MethodTable table = {
      {"count", list_count_method},
      {"index", list_index_method},
      {"copy", copy_method},
  };
  return table;
}

}  // namespace

Value method_of(const Value& self, const std::string& name) {
  if (self.is_object()) return self.object().attribute(name);
  const MethodTable* table = self.is_text()   ? &text_methods()
                             : self.is_dict() ? &dict_methods()
                             : self.is_list() ? &list_methods()
                                              : nullptr;
  if (table == nullptr) return {};
  const auto known = table->find(name);
  if (known != table->end()) {
    return make_function(name, [self, method = known->second](Interpreter& interpreter, const Arguments& arguments) {
      interpreter.budget().charge(1);
      return method(self, arguments, interpreter.budget());
    });
  }
  static constexpr std::string_view changes[] = {"append", "extend",  "insert", "remove",  "pop",       "clear",
                                                 "sort",   "reverse", "update", "popitem", "setdefault"};
  const bool is_change = std::find(std::begin(changes), std::end(changes), name) != std::end(changes);
  if (is_change && !self.is_text() && !(self.is_dict() && self.dict().find(name) != nullptr)) {
    fail("{}.{}: a template cannot change a list or dict; make a new one with set", type_name(self), name);
  }
  return {};
}

}  // namespace nibble::jinja
