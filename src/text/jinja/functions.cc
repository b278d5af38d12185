// The functions that a template can call by name.
#include <ctime>
#include <unordered_map>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {

namespace {

struct Function : Object {
  std::string name;
  FunctionBody body;
  std::string_view type() const override { return "function"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& interpreter, const Arguments& arguments) override { return body(interpreter, arguments); }
};

Value range(Interpreter& interpreter, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty()) fail("range: 1 to 3 numbers expected");
  const int64_t start = given.size() > 1 ? to_integer(given[0], "range") : 0;
  const int64_t stop = to_integer(given[given.size() > 1 ? 1 : 0], "range");
  const int64_t step = given.size() > 2 ? to_integer(given[2], "range") : 1;
  if (step == 0) fail("range: the step is 0");
  constexpr size_t kMaxRange = 100'000;  // the sandbox that published templates are written for has the same limit
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() >= kMaxRange) fail("range: more than {} numbers", kMaxRange);
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  interpreter.budget().charge(items.size());
  return {std::move(items), SequenceKind::range};
}

// The entries of dict(…) and namespace(…): those of a dict or of a list of pairs, then the named ones.
void fill(Dict& dict, Interpreter& interpreter, const Arguments& arguments) {
  for (const Value& source : arguments.positional) {
    if (source.is_undefined()) fail_undefined(source);
    if (source.is_dict()) {
      for (const auto& [key, value] : source.dict().items) dict.set(key, value, interpreter.budget());
      continue;
    }
    for (const Value& pair : iterate(source, interpreter.budget())) {
      const auto items = iterate(pair, interpreter.budget());
      if (items.size() != 2) fail("dict: a pair of key and value expected, not {} values", items.size());
      dict.set(items[0], items[1], interpreter.budget());
    }
  }
  for (const auto& [key, value] : arguments.named) dict.set(key, value);
}

Value make_dict(Interpreter& interpreter, const Arguments& arguments) {
  if (arguments.positional.size() > 1) fail("dict: {} dicts, at most one expected", arguments.positional.size());
  Dict dict;
  fill(dict, interpreter, arguments);
  return dict;
}

Value make_namespace(Interpreter& interpreter, const Arguments& arguments) {
  const auto space = interpreter.make_namespace();
  if (arguments.positional.size() > 1) fail("namespace: {} dicts, at most one expected", arguments.positional.size());
  fill(space->values, interpreter, arguments);
  for (const auto& [name, value] : space->values.items)
    if (name.is_text()) check_namespace_name(name.text());
  return ObjectPointer(space);
}

Value raise_exception(Interpreter& interpreter, const Arguments& arguments) {
  fail("{}", to_text(arguments.bind("raise_exception", {"message"}, 1)[0], interpreter.budget()));
}

Value strftime_now(Interpreter& interpreter, const Arguments& arguments) {
  const std::string format = to_text(arguments.bind("strftime_now", {"format"}, 1)[0], interpreter.budget());
  if (format.size() > 200) fail("strftime_now: a format of {} bytes, at most 200 expected", format.size());
  std::timespec now{};
  std::timespec_get(&now, TIME_UTC);
  std::tm local{};
  localtime_r(&now.tv_sec, &local);
  // What C does not have: %f, microseconds. Python's datetime.now() knows no time zone: %z and %Z are empty.
  std::string expanded;
  for (size_t i = 0; i < format.size(); i++) {
    if (format[i] == '%' && i + 1 < format.size()) {
      const char kind = format[++i];
      if (kind == 'f') {
        expanded += fmt::format("{:06}", now.tv_nsec / 1000);
      } else if (kind != 'z' && kind != 'Z') {
        expanded += {'%', kind};
      }
    } else {
      expanded += format[i];
    }
  }
  char buffer[8192];
  return std::string(buffer, std::strftime(buffer, sizeof buffer, expanded.c_str(), &local));
}

// cycler(a, b, …): next() gives them in turn.
struct Cycler : Object, std::enable_shared_from_this<Cycler> {
  std::vector<Value> items;
  size_t at = 0;
  std::string_view type() const override { return "Cycler"; }
  Value attribute(std::string_view name) const override {
    if (name == "current") return items[at];
    if (name != "next" && name != "reset") return {};
    auto self = std::const_pointer_cast<Cycler>(shared_from_this());
    const auto body = [self, is_next = name == "next"](Interpreter&, const Arguments&) {
      const size_t before = self->at;
      self->at = is_next ? (before + 1) % self->items.size() : 0;
      return is_next ? self->items[before] : Value(None{});
    };
    return make_function(std::string(name), body, nesting);
  }
};

Value make_cycler(Interpreter&, const Arguments& arguments) {
  if (arguments.positional.empty()) fail("cycler: no items given");
  const auto cycler = std::make_shared<Cycler>();
  cycler->items = arguments.positional;
  cycler->nesting = nesting_around(cycler->items);
  return ObjectPointer(cycler);
}

// joiner(sep): nothing the first time it is called, then sep.
Value make_joiner(Interpreter&, const Arguments& arguments) {
  const Value separator = arguments.bind("joiner", {"sep"})[0];
  const auto body = [separator, is_first = true](Interpreter&, const Arguments&) mutable {
    if (std::exchange(is_first, false)) return Value("");
    return separator.is_undefined() ? Value(", ") : separator;
  };
  return make_function("joiner", body, nesting_around({separator}));
}

}  // namespace

Value make_function(std::string name, FunctionBody body, int nesting) {
  const auto function = std::make_shared<Function>();
  function->nesting = nesting;
  function->name = std::move(name);
  function->body = std::move(body);
  return ObjectPointer(function);
}

Value find_global(const std::string& name) {
  static const std::unordered_map<std::string, FunctionBody> functions = {
      {"range", range},
      {"dict", make_dict},
      {"namespace", make_namespace},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
      {"cycler", make_cycler},
      {"joiner", make_joiner},
  };
  const auto known = functions.find(name);
  return known == functions.end() ? Value() : make_function(name, known->second);
}

void check_namespace_name(const std::string& name) {
  if (name.starts_with('_')) fail("'{}' begins with an underscore; a namespace has no such names, rename it", name);
}

}  // namespace nibble::jinja
