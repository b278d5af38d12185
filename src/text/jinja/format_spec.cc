#include "text/jinja/format_spec.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

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

std::string format_integer(int64_t number, FormatSpec spec) {
  if (spec.precision >= 0) fail("format: a precision is not allowed for an integer");
  if (spec.type == 'c') {
    if (spec.sign != '-') fail("format: a sign is not allowed with 'c'");
    return pad("", character_of(number, "format"), spec, spec.align != 0 ? spec.align : '<');
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

std::string format_float(double number, FormatSpec spec) {
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
    const std::string scientific = fmt::format("{:.{}e}", size, spec.precision - 1);
    const int exponent = size == 0 ? 0 : std::atoi(scientific.c_str() + scientific.find('e') + 1);
    if (body.find_first_of(".en") == std::string::npos) {
      if (exponent >= spec.precision - 1 && exponent > 0) {
        FormatSpec exact = spec;
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

FormatSpec parse_spec(const std::string& text) {
  FormatSpec spec;
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

int take_number(const std::string& text, size_t& at, int limit) {
  if (at >= text.size() || !is_ascii_digit(text[at])) return -1;
  int number = 0;
  for (; at < text.size() && is_ascii_digit(text[at]); at++) {
    number = number * 10 + (text[at] - '0');
    if (number > limit) fail("the format '{}' asks for more than {} characters", text, limit);
  }
  return number;
}

std::string pad(const std::string& sign, const std::string& body, const FormatSpec& spec, char align) {
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

std::string integer_digits(uint64_t number, char type) {
  switch (type) {
    case 'x': return fmt::format("{:x}", number);
    case 'X': return fmt::format("{:X}", number);
    case 'o': return fmt::format("{:o}", number);
    case 'b': return fmt::format("{:b}", number);
    default: return std::to_string(number);
  }
}

std::string float_digits(double number, const FormatSpec& spec, char type) {
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

void keep_precision(std::string& text, const FormatSpec& spec) {
  if (spec.precision < 0) return;
  const auto offsets = character_offsets(text);
  text.resize(offsets[std::min<size_t>(spec.precision, offsets.size() - 1)]);
}

std::string character_of(int64_t code, std::string_view what) {
  if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("{}: {} is no character", what, code);
  std::string text;
  append_utf8(text, static_cast<char32_t>(code));
  return text;
}

std::string format_value(const Value& value, const std::string& text, Budget& budget) {
  if (text.empty()) return to_text(value, budget);
  if (!value.is_text() && !value.is_number())
    fail("format: a {} takes no specification ('{}')", type_name(value), text);
  FormatSpec spec = parse_spec(text);
  budget.charge_text(std::max(spec.width, 0) + std::max(spec.precision, 0));
  if (value.is_text()) {
    if (spec.type != 0 && spec.type != 's') fail("format: '{}' does not fit a string", spec.type);
    if (spec.align == '=' && text.find('=') == std::string::npos) spec.align = '<';  // a width with a leading zero
    if (spec.align == '=' || spec.sign != '-' || spec.is_alternate || spec.grouping != 0 ||
        text.find_first_of("+-") == 0)
      fail("format: '{}' does not fit a string", text);
    std::string shown = to_text(value, budget);
    keep_precision(shown, spec);
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

}  // namespace nibble::jinja
