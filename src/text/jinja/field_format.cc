#include "text/jinja/field_format.h"

#include <algorithm>
#include <optional>

#include "text/jinja/format.h"
#include "text/jinja/format_spec.h"
#include "text/jinja/markup.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

class FieldFormatter {
 public:
  FieldFormatter(bool is_markup, const Arguments& arguments, Budget& budget)
      : is_markup_(is_markup), arguments_(arguments), budget_(budget) {}

  std::string run(const std::string& format, int depth) {
    if (depth > 1) fail("format: fields are nested more than two deep");
    std::string out;
    for (size_t i = 0; i < format.size(); i++) {
      const char c = format[i];
      if (c != '{' && c != '}') {
        out += c;
      } else if (i + 1 < format.size() && format[i + 1] == c) {
        out += c;
        i++;
      } else if (c == '}') {
        fail("format: '}}' without '{{'");
      } else {
        size_t end = i + 1;
        int open = 1;
        for (; end < format.size() && open > 0; end++) open += format[end] == '{' ? 1 : format[end] == '}' ? -1 : 0;
        if (open > 0) fail("format: '{{' without '}}'");
        out += field(format.substr(i + 1, end - i - 2), depth);
        i = end - 1;
      }
      if (out.size() > kMaxText) fail("format: the text grows beyond {} bytes", kMaxText);
    }
    budget_.charge_text(out.size());
    return out;
  }

 private:
  std::string field(const std::string& text, int depth) {
    size_t end = 0;
    for (bool in_brackets = false; end < text.size() && (in_brackets || (text[end] != '!' && text[end] != ':')); end++)
      in_brackets = text[end] == '[' || (in_brackets && text[end] != ']');
    Value value = look_up(text.substr(0, end));
    if (end < text.size() && text[end] == '!') {
      const char conversion = end + 1 < text.size() ? text[end + 1] : 0;
      if (conversion != 'r' && conversion != 's' && conversion != 'a')
        fail("format: '!{}' is not a conversion", conversion);
      if (end + 2 < text.size() && text[end + 2] != ':') fail("format: ':' expected behind '!{}'", conversion);
      value = conversion == 's' ? to_text(value, budget_) : to_repr(value, budget_);
      end += 2;
    }
    const std::string spec = end < text.size() ? run(text.substr(end + 1), depth + 1) : "";
    if (is_markup_ && value.is_markup()) return value.text();
    std::string shown = format_value(value, spec, budget_);
    return is_markup_ ? escape_markup(shown) : shown;
  }

  Value look_up(const std::string& path) {
    size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = first(path.substr(0, end));
    while (end < path.size()) {
      const bool is_attribute = path[end] == '.';
      const size_t begin = end + 1;
      end = is_attribute ? std::min(path.find_first_of(".[", begin), path.size()) : path.find(']', begin);
      if (end == std::string::npos || end == begin) fail("format: '{}' is not a field", path);
      const std::string name = path.substr(begin, end - begin);
      if (is_attribute) {
        value = get_attribute(value, name);
      } else {
        value = get_item(value,
                         name.size() < 18 && std::all_of(name.begin(), name.end(), is_ascii_digit)
                             ? Value(static_cast<int64_t>(std::stoll(name)))
                             : Value(name),
                         budget_);
        end++;
        if (end < path.size() && path[end] != '.' && path[end] != '[') fail("format: '{}' is not a field", path);
      }
    }
    return value;
  }

  Value first(const std::string& name) {
    if (!std::all_of(name.begin(), name.end(), is_ascii_digit)) {
      const auto named = std::find_if(arguments_.named.begin(), arguments_.named.end(),
                                      [&](const auto& entry) { return entry.first == name; });
      if (named == arguments_.named.end()) fail("format: no value is called '{}'", name);
      return named->second;
    }
    const bool is_automatic = name.empty();
    if (counts_ && *counts_ != is_automatic) fail("format: fields with and without numbers");
    counts_ = is_automatic;
    const size_t at = is_automatic ? used_++ : name.size() > 4 ? SIZE_MAX : std::stoul(name);
    if (at >= arguments_.positional.size()) fail("format: '{{{}}}', but {} values", name, arguments_.positional.size());
    return arguments_.positional[at];
  }

  bool is_markup_;
  const Arguments& arguments_;
  Budget& budget_;
  size_t used_ = 0;
  std::optional<bool> counts_;  // whether fields are numbered by their order
};

}  // namespace

Value format_fields(const Value& format, const Arguments& arguments, Budget& budget) {
  return {FieldFormatter(format.is_markup(), arguments, budget).run(format.text(), 0), format.is_markup()};
}

}  // namespace nibble::jinja
