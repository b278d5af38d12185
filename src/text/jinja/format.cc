#include "text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <utf8proc.h>

#include "text/jinja/operations.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

void append(std::string& out, std::string_view text, Budget& budget) {
  budget.charge_text(text.size());
  if (out.size() + text.size() > kMaxText) fail("a text grows beyond {} bytes", kMaxText);
  out += text;
}

void append_quoted(std::string& out, const std::string& text, Budget& budget) {
  const bool has_single = text.find('\'') != std::string::npos, has_double = text.find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string quoted(1, quote);
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    const char32_t c = step.code_point;
    if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\r') {
      quoted += "\\r";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (c == '\\' || c == static_cast<char32_t>(quote)) {
      quoted += {'\\', static_cast<char>(c)};
    } else if (is_printable(c)) {
      quoted.append(text, at, step.num_bytes);
    } else if (c < 0x100) {
      quoted += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      quoted += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      quoted += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    at += step.num_bytes;
  }
  append(out, quoted + quote, budget);
}

void append_repr(std::string& out, const Value& value, Budget& budget, int nesting);

void append_entries(std::string& out, const Dict& dict, Budget& budget, int nesting) {
  bool is_first = true;
  for (const auto& [key, item] : dict.items) {
    if (!is_first) append(out, ", ", budget);
    is_first = false;
    append_repr(out, key, budget, nesting + 1);
    append(out, ": ", budget);
    append_repr(out, item, budget, nesting + 1);
  }
}

void append_sequence(std::string& out, const Value& value, Budget& budget, int nesting) {
  const auto& items = value.items();
  const auto number = [&](size_t i) { return std::get<int64_t>(items[i].data); };
  if (value.is_kind(SequenceKind::range)) {
    int64_t step = 1, stop = 0;
    if (items.size() > 1 && __builtin_sub_overflow(number(1), number(0), &step)) step = INT64_MAX;
    const int64_t start = items.empty() ? 0 : number(0);
    if (!items.empty() && __builtin_add_overflow(number(items.size() - 1), step, &stop))
      stop = step > 0 ? INT64_MAX : INT64_MIN;
    append(out,
           step == 1 ? fmt::format("range({}, {})", start, stop) : fmt::format("range({}, {}, {})", start, stop, step),
           budget);
    return;
  }
  if (value.is_generator()) return append(out, "<generator>", budget);
  const bool is_view = !value.is_indexed() || value.is_kind(SequenceKind::range);
  if (is_view) append(out, fmt::format("{}(", type_name(value)), budget);
  append(out, value.is_tuple() ? "(" : "[", budget);
  for (size_t i = 0; i < items.size(); i++) {
    if (i > 0) append(out, ", ", budget);
    append_repr(out, items[i], budget, nesting + 1);
  }
  if (value.is_tuple() && items.size() == 1) append(out, ",", budget);
  append(out, value.is_tuple() ? ")" : "]", budget);
  if (is_view) append(out, ")", budget);
}

void append_repr(std::string& out, const Value& value, Budget& budget, int nesting) {
  if (nesting > kMaxNesting) fail("a value is nested more than {} deep", kMaxNesting);
  if (value.is_text()) {
    if (value.is_markup()) append(out, "Markup(", budget);
    append_quoted(out, value.text(), budget);
    if (value.is_markup()) append(out, ")", budget);
  } else if (value.is_undefined()) {
    append(out, "Undefined", budget);
  } else if (value.is_none()) {
    append(out, "None", budget);
  } else if (value.is_bool()) {
    append(out, is_true(value) ? "True" : "False", budget);
  } else if (value.is_integer()) {
    append(out, std::to_string(std::get<int64_t>(value.data)), budget);
  } else if (value.is_float()) {
    append(out, float_text(std::get<double>(value.data)), budget);
  } else if (value.is_list()) {
    append_sequence(out, value, budget, nesting);
  } else if (value.is_dict()) {
    append(out, "{", budget);
    append_entries(out, value.dict(), budget, nesting);
    append(out, "}", budget);
  } else if (const auto* space = dynamic_cast<const Namespace*>(&value.object())) {
    append(out, "<Namespace {", budget);
    append_entries(out, space->values, budget, nesting);
    append(out, "}>", budget);
  } else {
    append(out, value.object().shown(), budget);
  }
}

void append_json_text(std::string& out, const std::string& text, bool ensure_ascii, Budget& budget) {
  std::string quoted = "\"";
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    const char32_t c = step.code_point;
    switch (c) {
      case '"': quoted += "\\\""; break;
      case '\\': quoted += "\\\\"; break;
      case '\n': quoted += "\\n"; break;
      case '\r': quoted += "\\r"; break;
      case '\t': quoted += "\\t"; break;
      case '\f': quoted += "\\f"; break;
      case '\b': quoted += "\\b"; break;
      default:
        if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
          quoted += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
        } else if (ensure_ascii && c >= 0x10000) {
          const uint32_t offset = c - 0x10000;
          quoted += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
        } else {
          quoted.append(text, at, step.num_bytes);
        }
    }
    at += step.num_bytes;
  }
  append(out, quoted + '"', budget);
}

// JSON's name for a scalar, as value or as key; nothing for a string and for what JSON does not have.
std::optional<std::string> json_scalar(const Value& value) {
  if (value.is_none()) return "null";
  if (value.is_bool()) return is_true(value) ? "true" : "false";
  if (value.is_integer()) return std::to_string(std::get<int64_t>(value.data));
  if (!value.is_float()) return std::nullopt;
  const double number = std::get<double>(value.data);
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return float_text(number);
}

void append_json(std::string& out, const Value& value, const JsonStyle& style, Budget& budget, int level) {
  const auto new_line = [&](int at_level) {
    if (!style.indent) return;
    append(out, "\n", budget);
    for (int i = 0; i < at_level; i++) append(out, *style.indent, budget);
  };
  if (const auto scalar = json_scalar(value)) {
    append(out, *scalar, budget);
  } else if (value.is_text()) {
    append_json_text(out, value.text(), style.ensure_ascii, budget);
  } else if (value.is_kind(SequenceKind::list) || value.is_tuple()) {
    append(out, "[", budget);
    for (size_t i = 0; i < value.items().size(); i++) {
      if (i > 0) append(out, style.item_separator, budget);
      new_line(level + 1);
      append_json(out, value.items()[i], style, budget, level + 1);
    }
    if (!value.items().empty()) new_line(level);
    append(out, "]", budget);
  } else if (value.is_dict()) {
    auto items = value.dict().items;
    if (style.sort_keys) {
      const auto by_key = [](const auto& a, const auto& b) {
        if (a.first.is_text() && b.first.is_text()) return a.first.text() < b.first.text();
        if (!a.first.is_number() || !b.first.is_number()) fail("tojson: sort_keys needs keys of one type");
        return to_double(a.first, "tojson") < to_double(b.first, "tojson");
      };
      std::sort(items.begin(), items.end(), by_key);
    }
    append(out, "{", budget);
    for (size_t i = 0; i < items.size(); i++) {
      if (i > 0) append(out, style.item_separator, budget);
      new_line(level + 1);
      const auto& key = items[i].first;
      append_json_text(out, key.is_text() ? key.text() : *json_scalar(key), style.ensure_ascii, budget);
      append(out, style.key_separator, budget);
      append_json(out, items[i].second, style, budget, level + 1);
    }
    if (!items.empty()) new_line(level);
    append(out, "}", budget);
  } else {
    fail("tojson: a value of type {} has no JSON{}", type_name(value),
         value.is_undefined() && std::get<Undefined>(value.data).reason ? ": " + *std::get<Undefined>(value.data).reason
                                                                        : "");
  }
}

}  // namespace

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

std::string to_text(const Value& value, Budget& budget) {
  if (value.is_undefined()) return "";
  if (!value.is_text()) return to_repr(value, budget);
  budget.charge_text(value.text().size());
  return value.text();
}

std::string to_repr(const Value& value, Budget& budget) {
  std::string out;
  append_repr(out, value, budget, 0);
  return out;
}

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific).ptr;
  std::string_view text(buffer, end - buffer);  // d.ddde+xx with the fewest digits
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed).ptr;
  std::string fixed(buffer, fixed_end);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  std::string out;
  append_json(out, value, style, budget, 0);
  return out;
}

}  // namespace nibble::jinja
