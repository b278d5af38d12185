// Filters on texts.
#include <algorithm>
#include <utility>

#include "text/jinja/case.h"
#include "text/jinja/filters.h"
#include "text/jinja/format.h"
#include "text/jinja/markup.h"
#include "text/jinja/operations.h"
#include "text/jinja/percent_format.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

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
      {"default", default_value},
      {"d", default_value},
      {"tojson", tojson},
      {"indent", indent},
      {"truncate", truncate},
      {"format", format},
      {"wordcount", word_count},
  };
  return table;
}

}  // namespace nibble::jinja
