// Filters that make numbers, or take them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "text/jinja/case.h"
#include "text/jinja/filters.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

// The number that Python's float() reads from a text.
std::optional<double> parse_float(std::string_view source) {
  std::string text(strip(source));
  for (size_t i = 0; i < text.size(); i++)
    if (text[i] == '_' &&
        (i == 0 || i + 1 == text.size() || !is_ascii_digit(text[i - 1]) || !is_ascii_digit(text[i + 1])))
      return {};
  std::erase(text, '_');
  const std::string lower = to_lower(text);
  const bool is_special = lower.find("inf") != std::string::npos || lower.find("nan") != std::string::npos;
  if (text.empty() || (!is_special && text.find_first_not_of("0123456789+-.eE") != std::string::npos)) return {};
  if (lower.find('(') != std::string::npos) return {};
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return *end == 0 ? std::optional(number) : std::nullopt;
}

// float(value), if Python takes the value for one.
std::optional<double> float_of(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_number()) return to_double(value, "float");
  return value.is_text() ? parse_float(value.text()) : std::nullopt;
}

// The integer that Python's int() reads from a text.
std::optional<int64_t> parse_integer(std::string_view source, int64_t base) {
  std::string text(strip(source));
  const bool is_negative = text.starts_with('-');
  if (is_negative || text.starts_with('+')) text.erase(0, 1);
  const char mark = text.size() > 2 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  if (marked != 0 && (base == marked || base == 0)) {
    text.erase(0, text[2] == '_' ? 3 : 2);
    base = marked;
  } else if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string::npos) return {};
    base = 10;
  }
  if (text.empty() || text.starts_with('_') || text.ends_with('_') || text.find("__") != std::string::npos) return {};
  std::erase(text, '_');
  int64_t number = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number, static_cast<int>(base));
  if (result.ptr != text.data() + text.size() || text.starts_with('-')) return {};
  if (result.ec != std::errc()) fail("int: '{}' does not fit 64 bits", text);
  return is_negative ? -number : number;
}

Value file_size(Interpreter&, const Value& input, const Arguments& arguments) {
  const bool is_binary = is_true(arguments.bind("filesizeformat", {"binary"})[0]);
  const std::optional<double> given = float_of(input);
  if (!given) fail("filesizeformat: a number expected, not {}", type_name(input));
  const double size = *given, base = is_binary ? 1024 : 1000;
  if (!(size > -9.2e18)) fail("filesizeformat: {} does not fit 64 bits", size);
  if (size == 1) return "1 Byte";
  if (size < base) return fmt::format("{} Bytes", static_cast<int64_t>(size));
  static constexpr std::string_view prefixes = "kMGTPEZY";
  double unit = base;
  for (const char prefix : prefixes) {
    unit *= base;
    if (size >= unit && prefix != prefixes.back()) continue;
    const char shown = is_binary && prefix == 'k' ? 'K' : prefix;
    return fmt::format("{:.1f} {}{}", base * size / unit, shown, is_binary ? "iB" : "B");
  }
  return "";  // not reached: the last prefix takes everything
}

Value to_int(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("int", {"default", "base"});
  const bool has_fallback =
      !arguments.positional.empty() || std::any_of(arguments.named.begin(), arguments.named.end(),
                                                   [](const auto& entry) { return entry.first == "default"; });
  Value fallback = has_fallback ? bound[0] : Value(0);
  if (input.is_integer() || input.is_bool()) return to_integer(input, "int");
  if (input.is_text()) {
    const int64_t base = bound[1].is_undefined() ? 10 : to_integer(bound[1], "int: base");
    const bool is_base = base == 0 || (base >= 2 && base <= 36);  // with another one only the float is tried
    if (const auto whole = is_base ? parse_integer(input.text(), base) : std::nullopt) return *whole;
  }
  const std::optional<double> number = float_of(input);
  if (!number) return fallback;
  if (!std::isfinite(*number)) {
    if (input.is_float() && std::isinf(*number)) fail("int: infinity is not an integer");
    return fallback;
  }
  if (std::abs(*number) >= 9.2e18) fail("int: {} does not fit 64 bits", *number);
  return static_cast<int64_t>(*number);
}

Value to_float(Interpreter&, const Value& input, const Arguments& arguments) {
  const Value fallback = arguments.bind("float", {"default"})[0];
  if (const auto number = float_of(input)) return *number;
  return fallback.is_undefined() ? Value(0.0) : fallback;
}

Value absolute(Interpreter&, const Value& input, const Arguments&) {
  if (input.is_undefined()) fail_undefined(input);
  if (input.is_float()) return std::abs(std::get<double>(input.data));
  const int64_t number = to_integer(input, "abs");
  return number < 0 ? negate(number) : Value(number);
}

// Rounds to a number of digits, a tie of the exact value to the even digit.
double round_to(double number, int64_t precision) {
  if (!std::isfinite(number) || precision > 300) return number;
  if (precision < -300) return std::copysign(0.0, number);
  if (precision >= 0) return std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(number / scale) * scale;
}

Value round_integer(int64_t number, int64_t precision) {
  if (precision >= 0) return number;
  if (precision < -18) return 0;
  int64_t scale = 1;
  for (int64_t i = precision; i < 0; i++) scale *= 10;
  int64_t rest = number % scale;
  if (rest < 0) rest += scale;
  int64_t below = 0, above = 0;
  if (__builtin_sub_overflow(number, rest, &below) || __builtin_add_overflow(below, scale, &above))
    fail("round: the result does not fit 64 bits");
  const bool goes_up = rest > scale - rest || (rest == scale - rest && below / scale % 2 != 0);
  return goes_up ? above : below;
}

Value round_number(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("round", {"precision", "method"});
  const bool has_precision = !bound[0].is_undefined();
  const std::string method = bound[1].is_undefined() ? "common" : bound[1].is_text() ? bound[1].text() : "";
  if (input.is_undefined()) fail_undefined(input);
  if (method == "common") {
    if (!input.is_number()) fail("round: a number expected, not {}", type_name(input));
    if (bound[0].is_none()) {  // to an integer
      const double whole = input.is_float() ? std::nearbyint(std::get<double>(input.data)) : 0;
      if (!(std::fabs(whole) < 9.2e18)) fail("round: {} does not fit 64 bits", whole);
      return input.is_float() ? static_cast<int64_t>(whole) : to_integer(input, "round");
    }
    const int64_t precision = has_precision ? to_integer(bound[0], "round") : 0;
    if (!input.is_float()) return round_integer(to_integer(input, "round"), precision);
    return round_to(std::get<double>(input.data), precision);
  }
  if (method != "ceil" && method != "floor") fail("round: method '{}'; common, ceil and floor are known", method);
  const int64_t precision = has_precision ? to_integer(bound[0], "round") : 0;
  if (precision < -300 || precision > 300) fail("round: a precision of {}, -300 to 300 expected", precision);
  const double scale = std::pow(10.0, static_cast<double>(precision)), number = to_double(input, "round") * scale;
  if (!(std::fabs(number) < 9.2e18)) fail("round: {} does not fit 64 bits", number);
  const double whole = method == "ceil" ? std::ceil(number) : std::floor(number);
  return (whole == 0 ? 0.0 : whole) / scale;
}

}  // namespace

const FilterTable& number_filters() {
  static const FilterTable table = {
      {"int", to_int}, {"float", to_float}, {"abs", absolute}, {"round", round_number}, {"filesizeformat", file_size},
  };
  return table;
}

}  // namespace nibble::jinja
