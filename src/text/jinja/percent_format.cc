#include "text/jinja/percent_format.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/jinja/format.h"
#include "text/jinja/format_spec.h"
#include "text/jinja/markup.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

// One conversion of a %-format, from behind the % on.
struct Conversion {
  std::optional<std::string> name;
  FormatSpec spec;
  bool is_left = false, pads_zeros = false;
  char type = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(const Value& format, const Value& value, Budget& budget)
      : format_(format.text()), is_markup_(format.is_markup()), value_(value), budget_(budget) {}

  std::string run() {
    budget_.charge_text(format_.size());
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
    FormatSpec spec = c.spec;
    const char align = c.is_left ? '<' : '>';
    switch (c.type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text = c.type == 's' ? to_text(value, budget_) : to_repr(value, budget_);
        if (is_markup_ && !(c.type == 's' && value.is_markup())) text = escape_markup(text);
        if (c.type == 'a' && std::any_of(text.begin(), text.end(), [](char b) { return b < 0; }))
          fail("'%a' is not supported for other than ASCII");
        keep_precision(text, spec);
        return pad("", text, spec, align);
      }
      case 'c': {
        if (value.is_text()) {
          if (count_characters(value.text()) != 1) fail("'%c': one character expected");
          return pad("", value.text(), spec, align);
        }
        return pad("", character_of(to_integer(value, "'%c'"), "'%c'"), spec, align);
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
                      float_digits(std::fabs(number), spec, c.type), c);
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
    return finish(sign, digits, c);
  }

  static std::string finish(const std::string& sign, std::string digits, const Conversion& c) {
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

}  // namespace

Value format_percent(const Value& format, const Value& value, Budget& budget) {
  return {PercentFormatter(format, value, budget).run(), format.is_markup()};
}

}  // namespace nibble::jinja
