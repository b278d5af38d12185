#include "text/jinja/python_format.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

constexpr int kMaxWidth = 100'000;    // of a field
constexpr int kMaxPrecision = 1'000;  // digits behind the point

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A number of a specification at `at`, which it steps over; -1 if there is none.
int take_number(const std::string& text, size_t& at, int limit) {
  if (at >= text.size() || !is_digit(text[at])) return -1;
  int number = 0;
  for (; at < text.size() && is_digit(text[at]); at++) {
    number = number * 10 + (text[at] - '0');
    if (number > limit) fail("the format '{}' asks for more than {} characters", text, limit);
  }
  return number;
}

// The specification of a field, as far as both kinds of formatting share it.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, or 0 for the type's own
  char sign = '-';
  bool is_alternate = false;
  int width = -1, precision = -1;
  char grouping = 0;  // , or _
  char type = 0;
};

std::string pad(const std::string& sign, const std::string& body, const Spec& spec, char align) {
  const int64_t missing = spec.width - static_cast<int64_t>(count_characters(sign) + count_characters(body));
  if (missing <= 0) return sign + body;
  const auto fill = [&](int64_t count) {
    std::string text;
    for (int64_t i = 0; i < count; i++) text += spec.fill;
    return text;
  };
  switch (align) {
    case '<': return sign + body + fill(missing);
    case '^': return fill(missing / 2) + sign + body + fill(missing - missing / 2);
    case '=': return sign + fill(missing) + body;
    default: return fill(missing) + sign + body;
  }
}

// Separators between groups of digits of the whole part, and zeros before it up to `width` characters.
std::string group_digits(const std::string& number, char separator, size_t size, int64_t width) {
  const size_t whole = std::min(number.find_first_of(".eE%"), number.size());
  std::string digits = number.substr(0, whole);
  const std::string rest = number.substr(whole);
  const auto grouped = [&] {
    std::string text = digits;
    if (separator != 0)
      for (auto at = static_cast<int64_t>(text.size()) - static_cast<int64_t>(size); at > 0;
           at -= static_cast<int64_t>(size))
        text.insert(at, 1, separator);
    return text;
  };
  while (static_cast<int64_t>(grouped().size() + rest.size()) < width) digits.insert(0, 1, '0');
  return grouped() + rest;
}

std::string integer_digits(uint64_t number, char type) {
  switch (type) {
    case 'x': return fmt::format("{:x}", number);
    case 'X': return fmt::format("{:X}", number);
    case 'o': return fmt::format("{:o}", number);
    case 'b': return fmt::format("{:b}", number);
    default: return std::to_string(number);
  }
}

// The digits of |number| as C's printf writes them.
std::string float_digits(double number, const Spec& spec, char type) {
  if (std::isnan(number)) return type == 'F' || type == 'E' || type == 'G' ? "NAN" : "nan";
  if (std::isinf(number)) return type == 'F' || type == 'E' || type == 'G' ? "INF" : "inf";
  std::string format = spec.is_alternate ? "%#.*" : "%.*";
  format += type;
  const int size = std::snprintf(nullptr, 0, format.c_str(), spec.precision, number);
  std::string text(size, ' ');
  std::snprintf(text.data(), text.size() + 1, format.c_str(), spec.precision, number);
  return text;
}

uint64_t magnitude(int64_t number) {
  return number < 0 ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
}

std::string sign_text(bool is_negative, char sign) {
  if (is_negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

std::string format_integer(int64_t number, Spec spec) {
  if (spec.precision >= 0) fail("format: a precision is not allowed for an integer");
  if (spec.type == 'c') {
    if (spec.sign != '-') fail("format: a sign is not allowed with 'c'");
    std::string text;
    if (number < 0 || number > 0x10FFFF || (number >= 0xD800 && number < 0xE000))
      fail("format: {} is no character", number);
    append_utf8(text, static_cast<char32_t>(number));
    return pad("", text, spec, spec.align != 0 ? spec.align : '<');
  }
  const bool is_decimal = spec.type == 0 || spec.type == 'd' || spec.type == 'n';
  if (spec.grouping == ',' && !is_decimal) fail("format: ',' is not allowed with '{}'", spec.type);
  if (spec.grouping != 0 && spec.type == 'n') fail("format: '{}' is not allowed with 'n'", spec.grouping);
  std::string sign = sign_text(number < 0, spec.sign);
  if (spec.is_alternate && !is_decimal) sign += {'0', spec.type};
  const char align = spec.align != 0 ? spec.align : '>';
  const bool pads_zeros = align == '=' && spec.fill == "0";
  const int64_t width = pads_zeros ? spec.width - static_cast<int64_t>(sign.size()) : 0;
  const std::string body =
      group_digits(integer_digits(magnitude(number), spec.type), spec.grouping, is_decimal ? 3 : 4, width);
  return pad(sign, body, spec, align);
}

std::string format_float(double number, Spec spec) {
  if (spec.grouping != 0 && spec.type == 'n') fail("format: '{}' is not allowed with 'n'", spec.grouping);
  char type = spec.type;
  if (spec.is_alternate && type == 0) fail("format: '#' without a type is not supported for a float; write its type");
  std::string body;
  const double size = std::fabs(number);
  const bool is_negative = std::signbit(number) && !std::isnan(number);
  if (type == 0 && spec.precision < 0) {
    body = float_text(size);
  } else if (type == 0) {  // like g, but at least one digit behind the point
    if (spec.precision == 0) spec.precision = 1;
    body = float_digits(size, spec, 'g');
    const int exponent = size == 0
                             ? 0
                             : std::atoi(fmt::format("{:.{}e}", size, spec.precision - 1)
                                             .substr(fmt::format("{:.{}e}", size, spec.precision - 1).find('e') + 1)
                                             .c_str());
    if (body.find_first_of(".en") == std::string::npos) {
      if (exponent >= spec.precision - 1 && exponent > 0) {
        Spec exact = spec;
        exact.precision = spec.precision - 1;
        body = float_digits(size, exact, 'e');
        const size_t e = body.find('e'), point = body.find('.');
        if (point != std::string::npos) {
          std::string digits = body.substr(0, e);
          while (digits.back() == '0') digits.pop_back();
          if (digits.back() == '.') digits.pop_back();
          body = digits + body.substr(e);
        }
      } else {
        body += ".0";
      }
    }
  } else {
    if (spec.precision < 0) spec.precision = 6;
    if (type == 'n') type = 'g';
    body = type == '%' ? float_digits(size * 100, spec, 'f') + "%" : float_digits(size, spec, type);
  }
  const std::string sign = sign_text(is_negative, spec.sign);
  const char align = spec.align != 0 ? spec.align : '>';
  const bool pads_zeros = align == '=' && spec.fill == "0";
  if (std::isfinite(number))
    body = group_digits(body, spec.grouping, 3, pads_zeros ? spec.width - static_cast<int64_t>(sign.size()) : 0);
  return pad(sign, body, spec, align);
}

Spec parse_spec(const std::string& text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    const size_t first = read_utf8(text, 0).num_bytes;
    if (first < text.size() && is_align(text[first])) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      at = first + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  const bool has_align = spec.align != 0;
  const auto take = [&](std::string_view any) {
    return at < text.size() && any.find(text[at]) != std::string_view::npos;
  };
  if (take("+- ")) spec.sign = text[at++];
  if (take("z")) fail("format: 'z' is not supported");
  if (take("#")) spec.is_alternate = at++ < text.size();
  if (take("0")) {
    if (!has_align) spec.align = '=';
    if (!has_align || spec.fill == " ") spec.fill = has_align && at > 1 && !is_align(text[0]) ? spec.fill : "0";
    at++;
  }
  spec.width = take_number(text, at, kMaxWidth);
  if (take(",_")) spec.grouping = text[at++];
  if (take(".")) {
    at++;
    spec.precision = take_number(text, at, kMaxPrecision);
    if (spec.precision < 0) fail("format: the precision is missing in '{}'", text);
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) fail("format: the specification '{}' is not valid", text);
  return spec;
}

}  // namespace

std::string escape_markup(std::string_view source) {
  std::string text;
  for (const char c : source) {
    switch (c) {
      case '&': text += "&amp;"; break;
      case '<': text += "&lt;"; break;
      case '>': text += "&gt;"; break;
      case '"': text += "&#34;"; break;
      case '\'': text += "&#39;"; break;
      default: text += c;
    }
  }
  return text;
}

std::string escaped_text(const Value& value, Budget& budget) {
  if (value.is_markup()) return value.text();
  budget.charge_text(value.is_text() ? value.text().size() : 0);
  return escape_markup(to_text(value, budget));
}

std::string format_value(const Value& value, const std::string& text, Budget& budget) {
  if (text.empty()) return to_text(value, budget);
  if (!value.is_text() && !value.is_number())
    fail("format: a {} takes no specification ('{}')", type_name(value), text);
  Spec spec = parse_spec(text);
  budget.charge_text(std::max(spec.width, 0) + std::max(spec.precision, 0));
  if (value.is_text()) {
    if (spec.type != 0 && spec.type != 's') fail("format: '{}' does not fit a string", spec.type);
    if (spec.align == '=' && text.find('=') == std::string::npos) spec.align = '<';  // a width with a leading zero
    if (spec.align == '=' || spec.sign != '-' || spec.is_alternate || spec.grouping != 0 ||
        text.find_first_of("+-") == 0)
      fail("format: '{}' does not fit a string", text);
    std::string shown = value.text();
    if (spec.precision >= 0) {
      const auto offsets = character_offsets(shown);
      shown.resize(offsets[std::min<size_t>(spec.precision, offsets.size() - 1)]);
    }
    return pad("", shown, spec, spec.align != 0 ? spec.align : '<');
  }
  if (std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos && spec.type != 0)
    return format_float(to_double(value, "format"), spec);
  if (value.is_float()) {
    if (spec.type != 0 && spec.type != 'n') fail("format: '{}' does not fit a float", spec.type);
    return format_float(std::get<double>(value.data), spec);
  }
  if (std::string_view("bcdoxXn").find(spec.type) == std::string_view::npos && spec.type != 0)
    fail("format: '{}' does not fit an integer", spec.type);
  return format_integer(to_integer(value, "format"), spec);
}

namespace {

// One conversion of a %-format, from behind the % on.
struct Conversion {
  std::optional<std::string> name;
  Spec spec;
  bool is_left = false, pads_zeros = false;
  char type = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(const Value& format, const Value& value, Budget& budget)
      : format_(format.text()), is_markup_(format.is_markup()), value_(value), budget_(budget) {}

  std::string run() {
    std::string out;
    while (at_ < format_.size()) {
      const size_t next = std::min(format_.find('%', at_), format_.size());
      out.append(format_, at_, next - at_);
      at_ = next;
      if (at_ >= format_.size()) break;
      at_++;
      const Conversion conversion = parse();
      if (conversion.type == '%') {
        out += '%';
      } else {
        out += convert(conversion.name ? named(*conversion.name) : next_value(), conversion);
      }
      budget_.charge_text(64);
      if (out.size() > kMaxText) fail("'%': the text grows beyond {} bytes", kMaxText);
    }
    // One value that could be looked into by key may stay unused, as in Python.
    const bool may_be_unused = !value_.is_tuple() && (value_.is_list() || value_.is_dict() || value_.is_undefined());
    const size_t given = value_.is_tuple() ? value_.items().size() : 1;
    if (used_ < given && !may_be_unused && !uses_names_)
      fail("'%': {} values, but {} places in the format", given, used_);
    return out;
  }

 private:
  char peek() const { return at_ < format_.size() ? format_[at_] : 0; }

  int width_or_star() {
    if (peek() != '*') return take_number(format_, at_, kMaxWidth);
    at_++;
    const int64_t width = to_integer(next_value(), "'%*'");
    if (width > kMaxWidth || width < -kMaxWidth) fail("'%': a width of {}, at most {} expected", width, kMaxWidth);
    return static_cast<int>(width);
  }

  Conversion parse() {
    Conversion c;
    if (peek() == '(') {
      int open = 1;
      const size_t begin = ++at_;
      for (; at_ < format_.size() && open > 0; at_++) open += format_[at_] == '(' ? 1 : format_[at_] == ')' ? -1 : 0;
      if (open > 0) fail("'%': a name in brackets does not end");
      c.name = format_.substr(begin, at_ - 1 - begin);
      uses_names_ = true;
    }
    for (bool is_flag = true; is_flag;) {
      switch (peek()) {
        case '-': c.is_left = true; break;
        case '+': c.spec.sign = '+'; break;
        case ' ': c.spec.sign = c.spec.sign == '+' ? '+' : ' '; break;
        case '#': c.spec.is_alternate = true; break;
        case '0': c.pads_zeros = true; break;
        default: is_flag = false;
      }
      if (is_flag) at_++;
    }
    c.spec.width = width_or_star();
    if (c.spec.width < -1) {
      c.is_left = true;
      c.spec.width = -c.spec.width;
    }
    if (peek() == '.') {
      at_++;
      c.spec.precision = std::max(width_or_star(), 0);
    }
    if (peek() == 'l' || peek() == 'h' || peek() == 'L') at_++;
    c.type = peek();
    if (c.type == 0) fail("'%': the format '{}' is not complete", format_);
    at_++;
    return c;
  }

  Value next_value() {
    const bool is_one = !value_.is_tuple();
    const size_t given = is_one ? 1 : value_.items().size();
    if (uses_names_ || used_ >= given) fail("'%': more places in the format than values ({})", given);
    return is_one ? (used_++, value_) : value_.items()[used_++];
  }

  Value named(const std::string& name) {
    if (!value_.is_dict()) fail("'%': '({})' needs a dict, not {}", name, type_name(value_));
    const Value* found = value_.dict().find(name);
    if (found == nullptr) fail("'%': no value is called '{}'", name);
    return *found;
  }

  std::string convert(const Value& value, const Conversion& c) {
    budget_.charge_text(std::max(c.spec.width, 0) + std::max(c.spec.precision, 0));
    Spec spec = c.spec;
    const char align = c.is_left ? '<' : '>';
    switch (c.type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text = c.type == 's' ? to_text(value, budget_) : to_repr(value, budget_);
        if (is_markup_ && !(c.type == 's' && value.is_markup())) text = escape_markup(text);
        if (c.type == 'a' && std::any_of(text.begin(), text.end(), [](char b) { return b < 0; }))
          fail("'%a' is not supported for other than ASCII");
        if (spec.precision >= 0) {
          const auto offsets = character_offsets(text);
          text.resize(offsets[std::min<size_t>(spec.precision, offsets.size() - 1)]);
        }
        return pad("", text, spec, align);
      }
      case 'c': {
        if (value.is_text()) {
          if (count_characters(value.text()) != 1) fail("'%c': one character expected");
          return pad("", value.text(), spec, align);
        }
        std::string text;
        const int64_t code = to_integer(value, "'%c'");
        if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("'%c': {} is no character", code);
        append_utf8(text, static_cast<char32_t>(code));
        return pad("", text, spec, align);
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': return integer(value, c);
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G': {
        const double number = to_double(value, "'%'");
        if (spec.precision < 0) spec.precision = 6;
        return finish(sign_text(std::signbit(number) && !std::isnan(number), spec.sign),
                      float_digits(std::fabs(number), spec, c.type), c, std::isfinite(number));
      }
      default: fail("'%': the format '%{}' is not known", c.type);
    }
  }

  std::string integer(const Value& value, const Conversion& c) {
    const bool is_decimal = c.type == 'd' || c.type == 'i' || c.type == 'u';
    int64_t number = 0;
    if (value.is_float() && is_decimal) {
      const double whole = std::trunc(std::get<double>(value.data));
      if (!(std::fabs(whole) < 9.2e18)) fail("'%{}': {} does not fit 64 bits", c.type, whole);
      number = static_cast<int64_t>(whole);
    } else {
      number = to_integer(value, "'%'");
    }
    std::string digits = integer_digits(magnitude(number), c.type);
    if (c.spec.precision > static_cast<int>(digits.size())) digits.insert(0, c.spec.precision - digits.size(), '0');
    std::string sign = sign_text(number < 0, c.spec.sign);
    if (c.spec.is_alternate && !is_decimal) sign += {'0', c.type};
    return finish(sign, digits, c, true);
  }

  static std::string finish(const std::string& sign, std::string digits, const Conversion& c, bool is_finite) {
    (void)is_finite;
    const int64_t missing = c.spec.width - static_cast<int64_t>(sign.size() + digits.size());
    if (c.pads_zeros && !c.is_left && missing > 0) digits.insert(0, missing, '0');
    return pad(sign, digits, c.spec, c.is_left ? '<' : '>');
  }

  const std::string& format_;
  bool is_markup_;
  const Value& value_;
  Budget& budget_;
  size_t at_ = 0, used_ = 0;
  bool uses_names_ = false;
};

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
                         name.size() < 18 && std::all_of(name.begin(), name.end(), is_digit)
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
    if (!std::all_of(name.begin(), name.end(), is_digit)) {
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

Value format_percent(const Value& format, const Value& value, Budget& budget) {
  return {PercentFormatter(format, value, budget).run(), format.is_markup()};
}

Value format_fields(const Value& format, const Arguments& arguments, Budget& budget) {
  return {FieldFormatter(format.is_markup(), arguments, budget).run(format.text(), 0), format.is_markup()};
}

}  // namespace nibble::jinja
