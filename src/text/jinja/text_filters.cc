// Filters on texts and numbers, and the look-up of all filters.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "text/jinja/case.h"
#include "text/jinja/filters.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/python_format.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

bool is_given(const Value& value) { return !value.is_undefined() && !value.is_none(); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The input as a string; markup stays what it is.
Value soft_text(const Value& input, Budget& budget) { return input.is_text() ? input : Value(to_text(input, budget)); }

// The filter is the method of that name on the input's text, with at most this many arguments.
template <const char* const& name>
Value text_method(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return interpreter.call(method_of(soft_text(input, interpreter.budget()), name), arguments);
}

const char* const kUpper = "upper";
const char* const kLower = "lower";
const char* const kCapitalize = "capitalize";

Value trim(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value chars = arguments.bind("trim", {"chars"})[0];
  const bool has_chars = arguments.positional.size() + arguments.named.size() > 0;
  const Arguments set{has_chars ? std::vector<Value>{chars} : std::vector<Value>(), {}};
  return interpreter.call(method_of(soft_text(input, interpreter.budget()), "strip"), set);
}

Value replace_filter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("replace", {"old", "new", "count"}, 2);
  Budget& budget = interpreter.budget();
  Arguments as_text{{to_text(bound[0], budget), to_text(bound[1], budget)}, {}};
  if (is_given(bound[2])) as_text.positional.push_back(bound[2]);
  return interpreter.call(method_of(Value(to_text(input, budget)), "replace"), as_text);
}

Value center(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value width = arguments.bind("center", {"width"})[0];
  const Value text = soft_text(input, interpreter.budget());
  return interpreter.call(method_of(text, "center"), {{width.is_undefined() ? Value(80) : width}, {}});
}

// Words begin behind white space, hyphens and opening brackets only, unlike in the method of the same name.
Value title(Interpreter& interpreter, const Value& input, const Arguments&) {
  const std::string source = to_text(input, interpreter.budget());
  const auto offsets = character_offsets(source);
  std::string text, word;
  const auto finish_word = [&] {  // first letter upper, the others lower
    const size_t first = word.empty() ? 0 : read_utf8(word, 0).num_bytes;
    text += to_upper(std::string_view(word).substr(0, first)) + to_lower(std::string_view(word).substr(first));
    word.clear();
  };
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
  return soft_text(input, interpreter.budget());
}

Value safe(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("safe", {});
  return {to_text(input, interpreter.budget()), true};
}

Value escape(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("escape", {});
  return {escaped_text(input, interpreter.budget()), true};
}

Value force_escape(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("forceescape", {});
  return {escape_markup(to_text(input, interpreter.budget())), true};
}

std::string url_quoted(const Value& value, bool is_query, Budget& budget) {
  static constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~";
  std::string text;
  for (const char c : to_text(value, budget)) {
    if (kPlain.find(c) != std::string_view::npos || (c == '/' && !is_query)) {
      text += c;
    } else if (c == ' ' && is_query) {
      text += '+';
    } else {
      text += fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
  budget.charge_text(text.size());
  return text;
}

// A text, or the pairs of a dict or of a list of pairs as a query.
Value url_encode(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("urlencode", {});
  Budget& budget = interpreter.budget();
  if (!input.is_list() && !input.is_dict() && !input.is_undefined()) return url_quoted(input, false, budget);
  const auto pairs = input.is_dict() ? interpreter.call(method_of(input, "items"), {}).items() : iterate(input, budget);
  std::string text;
  for (const Value& pair : pairs) {
    const auto items = iterate(pair, budget);
    if (items.size() != 2) fail("urlencode: a pair expected, not {} values", items.size());
    if (!text.empty()) text += '&';
    text += url_quoted(items[0], true, budget) + "=" + url_quoted(items[1], true, budget);
  }
  return text;
}

Value xml_attributes(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("xmlattr", {"autospace"});
  if (!input.is_dict()) fail("xmlattr: a dict expected, not {}", type_name(input));
  std::string text;
  for (const auto& [key, value] : input.dict().items) {
    if (!is_given(value)) continue;
    if (!key.is_text()) fail("xmlattr: the name of an attribute is {}, a string expected", type_name(key));
    if (key.text().find_first_of(" \t\n\v\f\r/>=") != std::string::npos) {
      fail("xmlattr: '{}' is not the name of an attribute", key.text());
    }
    if (!text.empty()) text += ' ';
    text += escaped_text(key, interpreter.budget()) + "=\"" + escaped_text(value, interpreter.budget()) + "\"";
  }
  const bool has_space = bound[0].is_undefined() || is_true(bound[0]);
  return has_space && !text.empty() ? " " + text : text;
}

// The number that Python's float() reads from a text.
std::optional<double> parse_float(std::string_view source) {
  std::string text(strip(source));
  for (size_t i = 0; i < text.size(); i++)
    if (text[i] == '_' && (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])))
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

Value default_value(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("default", {"default_value", "boolean"});
  const bool is_missing = input.is_undefined() || (is_true(bound[1]) && !is_true(input));
  if (!is_missing) return input;
  return bound[0].is_undefined() && arguments.positional.empty() && arguments.named.empty() ? Value("") : bound[0];
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
  } else if (!bound[0].is_undefined()) {
    const int64_t width = to_integer(bound[0], "indent: width");
    if (width > 1000) fail("indent: a width of {}, at most 1000 expected", width);
    margin = std::string(std::max<int64_t>(width, 0), ' ');
  }
  const std::string source = input.text() + '\n';
  std::string text;
  bool is_first = true;
  for (const std::string_view line : split_lines(source, false)) {
    if (!is_first) text += '\n';
    const bool indents = is_first ? is_true(bound[1]) : !line.empty() || is_true(bound[2]);
    if (indents) text += margin;
    text += line;
    is_first = false;
    interpreter.budget().charge_text(line.size() + margin.size());
    if (text.size() > kMaxText) fail("indent: the text grows beyond {} bytes", kMaxText);
  }
  return {std::move(text), input.is_markup()};
}

Value truncate(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("truncate", {"length", "killwords", "end", "leeway"});
  const bool is_sized = input.is_dict() || (input.is_list() && !input.is_generator());
  if (!input.is_text() && !input.is_undefined() && !is_sized)
    fail("truncate: a string expected, not {}", type_name(input));
  const int64_t limit = bound[0].is_undefined() ? 255 : to_integer(bound[0], "truncate");
  const int64_t leeway = is_given(bound[3]) ? to_integer(bound[3], "truncate") : 5;
  if (limit < 0) fail("truncate: a length of {}, 0 or more expected", limit);
  if (leeway < 0) fail("truncate: a leeway of {}, 0 or more expected", leeway);
  std::string end = bound[2].is_undefined() ? "..." : to_text(bound[2], interpreter.budget());
  const int64_t kept = limit - static_cast<int64_t>(count_characters(end));
  if (kept < 0) fail("truncate: a length of {} is less than that of '{}'", limit, end);
  if (is_sized) {  // Python's len() does not mind
    if (length(input) - leeway <= limit) return input;
    fail("truncate: a string expected, not {}", type_name(input));
  }
  const std::string text = to_text(input, interpreter.budget());
  const auto offsets = character_offsets(text);
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  if (size <= limit || size - limit <= leeway) return input.is_text() ? input : Value("");
  std::string start = text.substr(0, offsets[kept]);
  if (!is_true(bound[1])) start = start.substr(0, start.rfind(' '));
  if (input.is_markup()) end = escaped_text(bound[2].is_undefined() ? Value(end) : bound[2], interpreter.budget());
  return {start + end, input.is_markup()};
}

Value format(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  if (!arguments.named.empty() && !arguments.positional.empty()) fail("format: values with and without names");
  Budget& budget = interpreter.budget();
  const Value text = soft_text(input, budget);
  if (arguments.named.empty()) return format_percent(text, Value(arguments.positional, SequenceKind::tuple), budget);
  Dict named;
  for (const auto& [name, value] : arguments.named) named.set(name, value);
  return format_percent(text, Value(std::move(named)), budget);
}

// Runs of letters, digits and underscores.
Value word_count(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("wordcount", {});
  const std::string text = to_text(input, interpreter.budget());
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    const bool is_word = is_word_character(step.code_point);
    count += is_word && !in_word ? 1 : 0;
    in_word = is_word;
    at += step.num_bytes;
  }
  return count;
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

// Without tags and comments, white space as single spaces, and the five escapes of HTML undone.
Value strip_tags(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  arguments.bind("striptags", {});
  const std::string source = to_text(input, interpreter.budget());
  std::string kept;
  size_t at = 0;
  for (size_t open; (open = source.find('<', at)) != std::string::npos;) {
    const bool is_comment = source.compare(open, 4, "<!--") == 0;
    const size_t end = is_comment ? source.find("-->", open + 4) : source.find('>', open);
    if (end == std::string::npos) break;
    kept.append(source, at, open - at);
    at = end + (is_comment ? 3 : 1);
  }
  kept.append(source, at);
  std::string text;
  for (const std::string_view word : split_at_space(kept, -1)) text.append(text.empty() ? "" : " ").append(word);
  static constexpr std::pair<std::string_view, std::string_view> escapes[] = {
      {"&lt;", "<"}, {"&gt;", ">"}, {"&#34;", "\""}, {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
  for (const auto& [escaped, character] : escapes) text = replace(text, escaped, character);
  return text;
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

const Filter* find_filter(const std::string& name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters()})
    if (const auto known = table->find(name); known != table->end()) return &known->second;
  return nullptr;
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table = {
      {"trim", trim},
      {"upper", text_method<kUpper>},
      {"lower", text_method<kLower>},
      {"title", title},
      {"capitalize", text_method<kCapitalize>},
      {"replace", replace_filter},
      {"center", center},
      {"string", to_string},
      {"safe", safe},
      {"escape", escape},
      {"e", escape},
      {"forceescape", force_escape},
      {"urlencode", url_encode},
      {"xmlattr", xml_attributes},
      {"striptags", strip_tags},
      {"filesizeformat", file_size},
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
  if (filter == nullptr && name == "random")
    fail("the filter 'random' is refused: a prompt must not differ from run to run");
  if (filter == nullptr) fail("unknown filter '{}'", name);
  interpreter.budget().charge(1);
  return (*filter)(interpreter, input, arguments);
}

}  // namespace nibble::jinja
