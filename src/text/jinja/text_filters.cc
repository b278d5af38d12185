// Filters on texts and numbers, and the look-up of all filters.
#include <cmath>
#include <utility>

#include "text/jinja/filters.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

bool is_given(const Value& value) { return !value.is_undefined() && !value.is_none(); }

// The filter is the method of that name on the input's text.
template <const char* const& name>
Value text_method(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value text = to_text(input, interpreter.budget());
  return interpreter.call(method_of(text, name), arguments);
}

const char* const kStrip = "strip";
const char* const kUpper = "upper";
const char* const kLower = "lower";
const char* const kCapitalize = "capitalize";
const char* const kReplace = "replace";

Value center(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value width = arguments.bind("center", {"width"})[0];
  const Value text = to_text(input, interpreter.budget());
  return interpreter.call(method_of(text, "center"), {{is_given(width) ? width : Value(80)}, {}});
}

// Words begin behind white space, hyphens and opening brackets only, unlike in the method of the same name.
Value title(Interpreter& interpreter, const Value& input, const Arguments&) {
  const std::string source = to_text(input, interpreter.budget());
  const auto offsets = character_offsets(source);
  std::string text, word;
  const auto finish_word = [&] { text += capitalize(std::exchange(word, {})); };
  for (size_t i = 0; i + 1 < offsets.size(); i++) {
    const std::string_view character = std::string_view(source).substr(offsets[i], offsets[i + 1] - offsets[i]);
    if (strip(character).empty() || std::string_view("-({[<").find(character) != std::string_view::npos) {
      finish_word();
      text += character;
    } else {
      word += character;
    }
  }
  finish_word();
  interpreter.budget().charge_text(4 * text.size());
  return text;
}

Value to_string(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("string", {});
  return to_text(input, interpreter.budget());
}

Value unchanged(Interpreter&, const Value& input, const Arguments&) { return input; }

Value escape(Interpreter& interpreter, const Value& input, const Arguments&) {
  std::string text;
  for (const char c : to_text(input, interpreter.budget())) {
    switch (c) {
      case '&': text += "&amp;"; break;
      case '<': text += "&lt;"; break;
      case '>': text += "&gt;"; break;
      case '"': text += "&#34;"; break;
      case '\'': text += "&#39;"; break;
      default: text += c;
    }
  }
  interpreter.budget().charge_text(text.size());
  return text;
}

Value url_encode(Interpreter& interpreter, const Value& input, const Arguments&) {
  static constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~/";
  std::string text;
  for (const char c : to_text(input, interpreter.budget())) {
    if (kPlain.find(c) != std::string_view::npos) {
      text += c;
    } else {
      text += fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
  interpreter.budget().charge_text(text.size());
  return text;
}

Value default_value(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("default", {"default_value", "boolean"});
  const bool is_missing = input.is_undefined() || (is_true(bound[1]) && !is_true(input));
  if (!is_missing) return input;
  return bound[0].is_undefined() && arguments.positional.empty() ? Value("") : bound[0];
}

Value tojson(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = is_true(bound[0]);
  style.sort_keys = is_true(bound[3]);
  if (is_given(bound[1])) {
    if (bound[1].is_text()) {
      style.indent = bound[1].text();
    } else {
      const int64_t width = to_integer(bound[1], "tojson: indent");
      if (width > 100) fail("tojson: indent is {}, at most 100 expected", width);
      style.indent = std::string(std::max<int64_t>(width, 0), ' ');
    }
    style.item_separator = ",";
  }
  if (is_given(bound[2])) {
    const auto separators = iterate(bound[2], interpreter.budget());
    if (separators.size() != 2 || !separators[0].is_text() || !separators[1].is_text()) {
      fail("tojson: separators: a pair of strings expected");
    }
    style.item_separator = separators[0].text();
    style.key_separator = separators[1].text();
  }
  return to_json(input, style, interpreter.budget());
}

Value indent(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("indent", {"width", "first", "blank"});
  if (!input.is_text()) fail("indent: a string expected, not {}", type_name(input));
  std::string margin = "    ";
  if (bound[0].is_text()) {
    margin = bound[0].text();
  } else if (is_given(bound[0])) {
    const int64_t width = to_integer(bound[0], "indent: width");
    if (width > 1000) fail("indent: a width of {}, at most 1000 expected", width);
    margin = std::string(std::max<int64_t>(width, 0), ' ');
  }
  const std::string source = to_text(input, interpreter.budget());
  std::string text;
  bool is_first = true;
  for (const std::string_view line : split(source, "\n", -1)) {
    if (!is_first) text += '\n';
    const bool indents = is_first ? is_true(bound[1]) : !line.empty() || is_true(bound[2]);
    if (indents) text += margin;
    text += line;
    is_first = false;
    interpreter.budget().charge_text(line.size() + margin.size());
    if (text.size() > kMaxText) fail("indent: the text grows beyond {} bytes", kMaxText);
  }
  return text;
}

Value truncate(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("truncate", {"length", "killwords", "end", "leeway"});
  if (!input.is_text() && !input.is_undefined()) fail("truncate: a string expected, not {}", type_name(input));
  const int64_t limit = is_given(bound[0]) ? to_integer(bound[0], "truncate") : 255;
  const int64_t leeway = is_given(bound[3]) ? to_integer(bound[3], "truncate") : 5;
  const std::string end = is_given(bound[2]) ? to_text(bound[2], interpreter.budget()) : "...";
  const std::string text = to_text(input, interpreter.budget());
  const auto offsets = character_offsets(text);
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  if (size <= limit || size - limit <= leeway) return text;
  const int64_t kept = limit - static_cast<int64_t>(count_characters(end));
  if (kept < 0) fail("truncate: a length of {} is less than that of '{}'", limit, end);
  std::string start = text.substr(0, offsets[kept]);
  if (!is_true(bound[1])) start = start.substr(0, start.rfind(' '));
  return start + end;
}

Value format(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return format_percent(to_text(input, interpreter.budget()), arguments.positional, interpreter.budget());
}

Value word_count(Interpreter& interpreter, const Value& input, const Arguments&) {
  const std::string text = to_text(input, interpreter.budget());
  return split_at_space(text, -1).size();
}

Value to_int(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("int", {"default", "base"});
  Value fallback = is_given(bound[0]) ? bound[0] : Value(0);
  if (input.is_integer() || input.is_bool()) return to_integer(input, "int");
  const int64_t base = is_given(bound[1]) ? to_integer(bound[1], "int: base") : 10;
  if (base < 2 || base > 36) fail("int: base {}, 2 to 36 expected", base);
  double number;
  if (input.is_float()) {
    number = std::get<double>(input.data);
  } else if (input.is_text()) {
    const std::string text(strip(input.text()));
    char* end = nullptr;
    errno = 0;
    const long long whole = std::strtoll(text.c_str(), &end, static_cast<int>(base));
    if (!text.empty() && *end == 0 && errno == 0) return static_cast<int64_t>(whole);
    number = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != 0) return fallback;
  } else {
    return fallback;
  }
  return std::isfinite(number) && std::abs(number) < 9.2e18 ? Value(static_cast<int64_t>(number)) : fallback;
}

Value to_float(Interpreter&, const Value& input, const Arguments& arguments) {
  const Value fallback = arguments.bind("float", {"default"})[0];
  if (input.is_number()) return to_double(input, "float");
  if (input.is_text()) {
    const std::string text(strip(input.text()));
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == 0) return number;
  }
  return is_given(fallback) ? fallback : Value(0.0);
}

Value absolute(Interpreter&, const Value& input, const Arguments&) {
  if (input.is_float()) return std::abs(std::get<double>(input.data));
  const int64_t number = to_integer(input, "abs");
  return number < 0 ? negate(number) : Value(number);
}

Value round_number(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("round", {"precision", "method"});
  const int64_t precision = is_given(bound[0]) ? to_integer(bound[0], "round") : 0;
  const std::string method = bound[1].is_text() ? bound[1].text() : "common";
  const double number = to_double(input, "round");
  if (precision < -300 || precision > 300) fail("round: a precision of {}, -300 to 300 expected", precision);
  if (method == "common") {
    if (!input.is_float() && precision >= 0) return to_integer(input, "round");
    if (precision < 0) {
      const double scale = std::pow(10.0, static_cast<double>(-precision));
      return std::nearbyint(number / scale) * scale;
    }
    return std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr);  // half to even on exact digits
  }
  if (method != "ceil" && method != "floor") fail("round: method '{}'; common, ceil and floor are known", method);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return (method == "ceil" ? std::ceil(number * scale) : std::floor(number * scale)) / scale;
}

const Filter* find_filter(const std::string& name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters()})
    if (const auto known = table->find(name); known != table->end()) return &known->second;
  return nullptr;
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table = {
      {"trim", text_method<kStrip>},
      {"upper", text_method<kUpper>},
      {"lower", text_method<kLower>},
      {"title", title},
      {"capitalize", text_method<kCapitalize>},
      {"replace", text_method<kReplace>},
      {"center", center},
      {"string", to_string},
      {"safe", unchanged},
      {"escape", escape},
      {"e", escape},
      {"forceescape", escape},
      {"urlencode", url_encode},
      {"default", default_value},
      {"d", default_value},
      {"tojson", tojson},
      {"indent", indent},
      {"truncate", truncate},
      {"format", format},
      {"wordcount", word_count},
      {"int", to_int},
      {"float", to_float},
      {"abs", absolute},
      {"round", round_number},
  };
  return table;
}

bool has_filter(const std::string& name) { return find_filter(name) != nullptr; }

Value apply_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& arguments) {
  const Filter* filter = find_filter(name);
  if (filter == nullptr) fail("unknown filter '{}'", name);
  interpreter.budget().charge(1);
  return (*filter)(interpreter, input, arguments);
}

}  // namespace nibble::jinja
