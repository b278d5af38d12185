// The values that a template computes with: those of Python, as far as chat templates see them.
//
// Strings, lists and dicts do not change once made, so values are shared freely. Only a namespace can be assigned to.
// Everything that a template makes is charged to a budget, and what holds values nests to a bounded depth: a hostile
// template ends with an error, not with the machine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include "base/json.h"

namespace nibble::jinja {

// What goes wrong while a template is read or rendered. Whoever knows the line adds it and makes it an InputError.
struct Fault {
  std::string message;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Fault{fmt::format(format, std::forward<Args>(args)...)};
}

// Work that is left: about one for each step, one for each element and one for 64 bytes of text.
class Budget {
 public:
  void charge(uint64_t work) {
    if (work > left_) fail("the template takes too many steps (limit {})", kWork);
    left_ -= work;
  }
  void charge_text(size_t bytes) { charge(bytes / 64 + 1); }
  // To look for one text in another: at worst most of it is compared at each place.
  void charge_search(size_t bytes, size_t wanted_bytes) { charge((bytes / 64 + 1) * uint64_t{wanted_bytes / 64 + 1}); }

 private:
  // A value takes up to 110 bytes of memory; published templates take a few hundred steps for a message.
  static constexpr uint64_t kWork = 2'000'000;
  uint64_t left_ = kWork;
};

inline constexpr int kMaxNesting = 100;              // of values that hold each other
inline constexpr size_t kMaxText = size_t{1} << 26;  // bytes of one string, and of the rendered text

struct List;
struct Dict;
struct Object;

struct Undefined {
  std::shared_ptr<const std::string> reason;  // what an error says if it is used
};
struct None {};

// Markup is what `escape` and `safe` give: whatever is put into it later is escaped.
struct String {
  std::string text;
  bool is_markup = false;
};

// What Python has several types for. All but lists and tuples come from functions, methods and filters.
enum class SequenceKind {
  list,
  tuple,
  group,  // a tuple of two from groupby, which calls them grouper and list
  range,
  keys,       // of a dict, as are the next two; they have no subscripts
  values,     //
  items,      //
  generator,  // gives each item once and knows no length
};

using Text = std::shared_ptr<const String>;
using ListPointer = std::shared_ptr<const List>;
using DictPointer = std::shared_ptr<const Dict>;
using ObjectPointer = std::shared_ptr<Object>;

struct Value {
  std::variant<Undefined, None, bool, int64_t, double, Text, ListPointer, DictPointer, ObjectPointer> data;

  Value() = default;  // undefined
  Value(None none) : data(none) {}
  Value(bool truth) : data(truth) {}
  Value(int64_t number) : data(number) {}
  Value(int number) : data(int64_t{number}) {}
  Value(size_t number) : data(static_cast<int64_t>(number)) {}
  Value(double number) : data(number) {}
  Value(std::string text, bool is_markup = false)
      : data(std::make_shared<const String>(String{std::move(text), is_markup})) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(std::vector<Value> items, SequenceKind kind = SequenceKind::list);  // checks the nesting
  Value(Dict dict);                                                         // checks the nesting
  Value(ObjectPointer object) : data(std::move(object)) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(data); }
  bool is_none() const { return std::holds_alternative<None>(data); }
  bool is_bool() const { return std::holds_alternative<bool>(data); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data); }  // a bool is not one here
  bool is_float() const { return std::holds_alternative<double>(data); }
  bool is_number() const { return is_bool() || is_integer() || is_float(); }
  bool is_text() const { return std::holds_alternative<Text>(data); }
  bool is_list() const { return std::holds_alternative<ListPointer>(data); }  // of any kind of sequence
  bool is_dict() const { return std::holds_alternative<DictPointer>(data); }
  bool is_object() const { return std::holds_alternative<ObjectPointer>(data); }
  bool is_markup() const { return is_text() && std::get<Text>(data)->is_markup; }
  bool is_kind(SequenceKind kind) const;
  bool is_tuple() const { return is_kind(SequenceKind::tuple) || is_kind(SequenceKind::group); }
  bool is_generator() const { return is_kind(SequenceKind::generator); }
  bool is_indexed() const;  // a sequence with subscripts, slices and an order

  // Each is right only where the question above is answered with yes.
  const std::string& text() const { return std::get<Text>(data)->text; }
  const std::vector<Value>& items() const;
  SequenceKind kind() const;
  const Dict& dict() const { return *std::get<DictPointer>(data); }
  Object& object() const { return *std::get<ObjectPointer>(data); }
};

struct List {
  std::vector<Value> items;
  SequenceKind kind;
  int nesting;                   // 1 if nothing in it holds values
  mutable size_t num_taken = 0;  // items that a generator has given
};

// In order of insertion. Keys are strings or other scalars, which are searched for one by one.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int nesting = 1;

  void set(const Value& key, Value value, Budget& budget);
  void set(const std::string& key, Value value) { set_text(key, std::move(value)); }
  const Value* find(const Value& key, Budget& budget) const;  // nullptr if there is none
  const Value* find(const std::string& key) const;

 private:
  void set_text(const Value& key, Value value);

  std::unordered_map<std::string, size_t> index_;  // of the keys that are strings
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The arguments by parameter, undefined where none is given. A parameter whose name begins with '/' has no name for
  // the caller. Fails if one of the first `num_required` is missing, and on an argument that is given twice or that no
  // parameter takes.
  std::vector<Value> bind(std::string_view function, std::initializer_list<std::string_view> parameters,
                          size_t num_required = 0) const;
};

class Interpreter;

// A thing with attributes, or that can be called: namespaces, loops, macros, functions, bound methods.
struct Object {
  int nesting = 0;  // of the values it holds, as a list's; 0 for a namespace, whose values are let go of before it

  virtual ~Object() = default;
  virtual std::string_view type() const = 0;
  virtual std::string shown() const { return fmt::format("<{}>", type()); }  // when printed
  virtual Value attribute(std::string_view) const { return {}; }
  virtual bool is_callable() const { return false; }
  virtual Value call(Interpreter&, const Arguments&) { fail("'{}' cannot be called", type()); }
};

struct Namespace : Object {
  Dict values;
  std::string_view type() const override { return "Namespace"; }
  Value attribute(std::string_view name) const override {
    const Value* found = values.find(std::string(name));
    return found == nullptr ? Value() : *found;
  }
};

Value undefined(std::string reason);

int nesting_of(const Value& value);

// That of what holds these values. Fails beyond kMaxNesting: values go away by recursion.
int nesting_around(const std::vector<Value>& values);

// Fails if the JSON nests too deep or has a number that 64 bits cannot hold.
Value from_json(const nlohmann::ordered_json& json, int nesting = 0);

// What Python calls the type: "str", "dict", …
std::string_view type_name(const Value& value);

bool is_true(const Value& value);
bool are_equal(const Value& a, const Value& b, Budget& budget);

// A number's value where Python would take it for an integer (True is 1); fails for anything else, naming `what`.
int64_t to_integer(const Value& value, std::string_view what);

// Whether an argument says anything: an undefined one or none stands for its default.
inline bool is_given(const Value& value) { return !value.is_undefined() && !value.is_none(); }

}  // namespace nibble::jinja
