// The tests behind `is`.
#include <cmath>
#include <unordered_map>

#include "text/jinja/builtins.h"
#include "text/jinja/case.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

using Test = bool (*)(const Value& value, const Value& other, Budget& budget);

struct TestEntry {
  Test test;
  int num_arguments = 0;
};

bool is_callable(const Value& value) { return value.is_object() && value.object().is_callable(); }

// The name of a filter or test to look for; no text names none.
std::string name_of(const Value& value, Budget& budget) {
  check_hashable(value, "the name of a filter or test");
  return value.is_text() ? to_text(value, budget) : "";
}

// Whether the two are one object. Small values always are.
bool are_same(const Value& a, const Value& b, Budget& budget) {
  if (a.data.index() != b.data.index()) return false;
  if (a.is_list()) return &a.items() == &b.items();
  if (a.is_dict()) return &a.dict() == &b.dict();
  return are_equal(a, b, budget);
}

// Whether value % divisor is this.
bool has_remainder(const Value& value, const Value& divisor, int expected, Budget& budget) {
  if (!value.is_number()) fail("a test for divisibility: a number expected, not {}", type_name(value));
  return are_equal(compute("%", value, divisor, budget), expected, budget);
}

const std::unordered_map<std::string, TestEntry>& tests() {
  static const auto equal = [](const Value& v, const Value& other, Budget& b) { return are_equal(v, other, b); };
  static const auto unequal = [](const Value& v, const Value& other, Budget& b) { return !are_equal(v, other, b); };
  static const auto less = [](const Value& v, const Value& other, Budget& b) { return compare("<", v, other, b); };
  static const auto at_most = [](const Value& v, const Value& other, Budget& b) { return compare("<=", v, other, b); };
  static const auto greater = [](const Value& v, const Value& other, Budget& b) { return compare(">", v, other, b); };
  static const auto at_least = [](const Value& v, const Value& other, Budget& b) { return compare(">=", v, other, b); };
  static const std::unordered_map<std::string, TestEntry> table = {
      {"defined", {[](const Value& v, const Value&, Budget&) { return !v.is_undefined(); }}},
      {"undefined", {[](const Value& v, const Value&, Budget&) { return v.is_undefined(); }}},
      {"none", {[](const Value& v, const Value&, Budget&) { return v.is_none(); }}},
      {"boolean", {[](const Value& v, const Value&, Budget&) { return v.is_bool(); }}},
      {"true", {[](const Value& v, const Value&, Budget&) { return v.is_bool() && is_true(v); }}},
      {"false", {[](const Value& v, const Value&, Budget&) { return v.is_bool() && !is_true(v); }}},
      {"integer", {[](const Value& v, const Value&, Budget&) { return v.is_integer(); }}},
      {"float", {[](const Value& v, const Value&, Budget&) { return v.is_float(); }}},
      {"number", {[](const Value& v, const Value&, Budget&) { return v.is_number(); }}},
      {"string", {[](const Value& v, const Value&, Budget&) { return v.is_text(); }}},
      {"mapping", {[](const Value& v, const Value&, Budget&) { return v.is_dict(); }}},
      {"sequence", {[](const Value& v, const Value&, Budget&) {
         return v.is_text() || v.is_indexed() || v.is_dict() || v.is_undefined();
       }}},
      {"iterable", {[](const Value& v, const Value&, Budget&) {
         return v.is_text() || v.is_list() || v.is_dict() || v.is_undefined();
       }}},
      {"callable", {[](const Value& v, const Value&, Budget&) { return v.is_undefined() || is_callable(v); }}},
      {"escaped", {[](const Value& v, const Value&, Budget&) { return v.is_markup(); }}},
      {"odd", {[](const Value& v, const Value&, Budget& b) { return has_remainder(v, 2, 1, b); }}},
      {"even", {[](const Value& v, const Value&, Budget& b) { return has_remainder(v, 2, 0, b); }}},
      {"divisibleby", {[](const Value& v, const Value& other, Budget& b) { return has_remainder(v, other, 0, b); }, 1}},
      {"upper", {[](const Value& v, const Value&, Budget& b) { return is_upper(to_text(v, b)); }}},
      {"lower", {[](const Value& v, const Value&, Budget& b) { return is_lower(to_text(v, b)); }}},
      {"sameas", {[](const Value& v, const Value& other, Budget& b) { return are_same(v, other, b); }, 1}},
      {"in", {[](const Value& v, const Value& other, Budget& b) { return contains(other, v, b); }, 1}},
      {"filter", {[](const Value& v, const Value&, Budget& b) { return has_filter(name_of(v, b)); }}},
      {"test", {[](const Value& v, const Value&, Budget& b) { return has_test(name_of(v, b)); }}},
      {"eq", {equal, 1}},
      {"equalto", {equal, 1}},
      {"==", {equal, 1}},
      {"ne", {unequal, 1}},
      {"!=", {unequal, 1}},
      {"lt", {less, 1}},
      {"lessthan", {less, 1}},
      {"<", {less, 1}},
      {"le", {at_most, 1}},
      {"<=", {at_most, 1}},
      {"gt", {greater, 1}},
      {"greaterthan", {greater, 1}},
      {">", {greater, 1}},
      {"ge", {at_least, 1}},
      {">=", {at_least, 1}},
  };
  return table;
}

}  // namespace

bool has_test(const std::string& name) { return tests().contains(name); }

bool apply_test(Interpreter& interpreter, const std::string& name, const Value& value, const Arguments& arguments) {
  const auto known = tests().find(name);
  if (known == tests().end()) fail("unknown test '{}'", name);
  const auto& [test, num_arguments] = known->second;
  const size_t given = arguments.positional.size() + arguments.named.size();
  if (given != static_cast<size_t>(num_arguments)) {
    fail("the test '{}' takes {} arguments, not {}", name, num_arguments, given);
  }
  const Value other = arguments.positional.empty() ? arguments.named.empty() ? Value() : arguments.named[0].second
                                                   : arguments.positional[0];
  return test(value, other, interpreter.budget());
}

}  // namespace nibble::jinja
