#include "text/jinja/operations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/markup.h"
#include "text/jinja/percent_format.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

Value checked_text(std::string text, Budget& budget) {
  budget.charge_text(text.size());
  if (text.size() > kMaxText) fail("a text grows beyond {} bytes", kMaxText);
  return text;
}

[[noreturn]] void fail_operands(std::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  fail("'{}' does not work between {} and {}", op, type_name(a), type_name(b));
}

[[noreturn]] void fail_overflow(std::string_view op) { fail("the result of '{}' does not fit 64 bits", op); }

Value repeat(const Value& value, int64_t count, Budget& budget) {
  count = std::max<int64_t>(count, 0);
  const size_t size = value.is_text() ? value.text().size() : value.items().size();
  if (size > 0 && static_cast<uint64_t>(count) > kMaxText / size)
    fail("'*' makes a value of more than {} parts", kMaxText);
  if (size == 0) return value;
  budget.charge(count + (value.is_text() ? size * count / 16 : size * count));
  if (value.is_text()) {
    std::string text;
    text.reserve(size * count);
    for (int64_t i = 0; i < count; i++) text += value.text();
    return {std::move(text), value.is_markup()};
  }
  std::vector<Value> items;
  items.reserve(size * count);
  for (int64_t i = 0; i < count; i++) items.insert(items.end(), value.items().begin(), value.items().end());
  return {std::move(items), value.is_tuple() ? SequenceKind::tuple : SequenceKind::list};
}

Value compute_integers(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) fail_overflow(op);
  } else if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) fail_overflow(op);
  } else if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) fail_overflow(op);
  } else if (op == "**") {
    if (b < 0 && a == 0) fail("'**': division by zero");
    if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
    if (b > 64 && (a > 1 || a < -1)) fail_overflow(op);
    if (b > 64) return a == -1 && b % 2 == 0 ? int64_t{1} : a;
    result = 1;
    for (int64_t i = 0; i < b; i++)
      if (__builtin_mul_overflow(result, a, &result)) fail_overflow(op);
  } else {
    if (b == 0) fail("'{}': division by zero", op);
    if (op == "/") return static_cast<double>(a) / static_cast<double>(b);
    if (b == -1) {  // the one quotient that can overflow
      if (op == "%") return 0;
      return compute_integers("-", 0, a);
    }
    const bool rounds_down = a % b != 0 && (a < 0) != (b < 0);
    result = op == "//" ? a / b - (rounds_down ? 1 : 0) : a % b + (rounds_down ? b : 0);
  }
  return result;
}

Value compute_floats(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    if (a == 0 && b < 0) fail("'**': division by zero");
    const double power = std::pow(a, b);
    if (std::isnan(power) && !std::isnan(a) && !std::isnan(b))
      fail("'**': the result is a complex number, which is not supported");
    if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) fail("'**': the result is too large");
    return power;
  }
  if (b == 0) fail("'{}': division by zero", op);
  if (op == "/") return a / b;
  double remainder = std::fmod(a, b), quotient = (a - remainder) / b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    remainder += b;
    quotient -= 1;
  }
  if (remainder == 0) remainder = std::copysign(0.0, b);
  if (op == "%") return remainder;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

bool is_set(const Value& value) { return value.is_kind(SequenceKind::keys) || value.is_kind(SequenceKind::items); }

bool is_subset(const Value& a, const Value& b, Budget& budget) {
  return std::all_of(a.items().begin(), a.items().end(), [&](const Value& item) {
    return std::any_of(b.items().begin(), b.items().end(),
                       [&](const Value& other) { return are_equal(item, other, budget); });
  });
}

std::string describe(const Value& value) {
  if (value.is_none()) return "None";
  return fmt::format("'{} object'", type_name(value));
}

}  // namespace

void fail_undefined(const Value& value) {
  const auto& reason = std::get<Undefined>(value.data).reason;
  fail("{}", reason ? *reason : "a value is undefined");
}

double to_double(const Value& value, std::string_view what) {
  if (value.is_float()) return std::get<double>(value.data);
  return static_cast<double>(to_integer(value, what));
}

Value get_attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) fail_undefined(value);
  if (has_attribute(value, name)) return method_of(value, name);
  if (value.is_dict()) {
    if (const Value* found = value.dict().find(name)) return *found;
  }
  return undefined(fmt::format("{} has no attribute '{}'", describe(value), name));
}

Value get_item(const Value& value, const Value& key, Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_dict()) {
    if (const Value* found = value.dict().find(key, budget)) return *found;
  } else if ((value.is_indexed() || value.is_text()) && (key.is_integer() || key.is_bool())) {
    if (value.is_text()) budget.charge_text(value.text().size());
    const int64_t size = length(value);
    int64_t index = to_integer(key, "a subscript");
    if (index < 0) index += size;
    if (index >= 0 && index < size) {
      if (value.is_list()) return value.items()[index];
      const auto offsets = character_offsets(value.text());
      return {value.text().substr(offsets[index], offsets[index + 1] - offsets[index]), value.is_markup()};
    }
    return undefined(fmt::format("{} has no element {}", describe(value), std::get<int64_t>(Value(index).data)));
  }
  if (key.is_text()) {
    if (has_attribute(value, key.text())) return method_of(value, key.text());
    return undefined(fmt::format("{} has no attribute '{}'", describe(value), key.text()));
  }
  return undefined(fmt::format("{} has no element {}", describe(value), to_repr(key, budget)));
}

Value slice(const Value& value, const Value& start, const Value& stop, const Value& step, Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_indexed() && !value.is_text()) fail("a {} cannot be sliced", type_name(value));
  const auto bound = [](const Value& given, int64_t fallback) {
    return given.is_none() ? fallback : to_integer(given, "a slice");
  };
  if (value.is_text()) budget.charge_text(value.text().size());
  const int64_t size = length(value), stride = bound(step, 1);
  if (stride == 0) fail("the step of a slice is 0");
  const auto clamp = [&](int64_t at) {
    if (at < 0) at = at < -size ? -1 : at + size;
    return std::clamp<int64_t>(at, stride < 0 ? -1 : 0, stride < 0 ? size - 1 : size);
  };
  const bool has_start = !start.is_none(), has_stop = !stop.is_none();
  const int64_t first = has_start ? clamp(bound(start, 0)) : stride < 0 ? size - 1 : 0;
  const int64_t last = has_stop ? clamp(bound(stop, 0)) : stride < 0 ? -1 : size;
  std::vector<int64_t> chosen;
  for (int64_t i = first; stride < 0 ? i > last : i < last;) {
    chosen.push_back(i);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  budget.charge(chosen.size() + 1);
  if (value.is_list()) {
    std::vector<Value> items;
    items.reserve(chosen.size());
    for (const int64_t i : chosen) items.push_back(value.items()[i]);
    return {std::move(items), value.is_tuple() ? SequenceKind::tuple : value.kind()};
  }
  const auto offsets = character_offsets(value.text());
  std::string text;
  for (const int64_t i : chosen) text.append(value.text(), offsets[i], offsets[i + 1] - offsets[i]);
  return {std::move(text), value.is_markup()};
}

std::vector<Value> iterate(const Value& value, Budget& budget) {
  if (value.is_undefined()) return {};
  std::vector<Value> items;
  if (value.is_list()) {
    size_t& num_taken = std::get<ListPointer>(value.data)->num_taken;
    budget.charge(value.items().size());
    if (!value.is_generator()) return value.items();
    return {value.items().begin() + static_cast<ptrdiff_t>(std::exchange(num_taken, value.items().size())),
            value.items().end()};
  }
  if (value.is_dict()) {
    budget.charge(value.dict().items.size());
    for (const auto& [key, item] : value.dict().items) items.push_back(key);
  } else if (value.is_text()) {
    budget.charge(value.text().size());
    const auto offsets = character_offsets(value.text());
    for (size_t i = 0; i + 1 < offsets.size(); i++)
      items.emplace_back(value.text().substr(offsets[i], offsets[i + 1] - offsets[i]));
  } else {
    fail("a {} is nothing to loop over", type_name(value));
  }
  return items;
}

int64_t length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_text()) return static_cast<int64_t>(count_characters(value.text()));
  if (value.is_list() && !value.is_generator()) return static_cast<int64_t>(value.items().size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict().items.size());
  fail("a {} has no length", type_name(value));
}

void check_hashable(const Value& value, std::string_view what) {
  const bool is_view = value.is_kind(SequenceKind::keys) || value.is_kind(SequenceKind::items);
  if (value.is_dict() || value.is_kind(SequenceKind::list) || is_view)
    fail("{}: a {} has no hash, so it cannot be looked up", what, type_name(value));
  if (!value.is_tuple()) return;
  for (const Value& item : value.items()) check_hashable(item, what);
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_text()) {
    if (!item.is_text()) fail_operands("in", item, container);
    budget.charge_search(container.text().size(), item.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (container.is_dict()) {
    check_hashable(item, "'in'");
    return container.dict().find(item, budget) != nullptr;
  }
  if (!container.is_list() && !container.is_undefined()) fail_operands("in", item, container);
  if (container.is_undefined()) return false;
  const auto& items = container.items();
  if (container.is_kind(SequenceKind::keys)) check_hashable(item, "'in'");
  size_t unused = 0;
  size_t& at = container.is_generator() ? std::get<ListPointer>(container.data)->num_taken : unused;
  while (at < items.size())
    if (are_equal(items[at++], item, budget)) return true;
  return false;
}

bool is_less(const Value& a, const Value& b, Budget& budget) {
  budget.charge(1);
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return to_double(a, "<") < to_double(b, "<");
    return to_integer(a, "<") < to_integer(b, "<");
  }
  if (a.is_text() && b.is_text()) {
    budget.charge_text(std::min(a.text().size(), b.text().size()));
    return a.text() < b.text();
  }
  if (is_set(a) && is_set(b)) return a.items().size() < b.items().size() && is_subset(a, b, budget);
  if (!(a.is_kind(SequenceKind::list) && b.is_kind(SequenceKind::list)) && !(a.is_tuple() && b.is_tuple()))
    fail_operands("<", a, b);
  for (size_t i = 0; i < a.items().size() && i < b.items().size(); i++)
    if (!are_equal(a.items()[i], b.items()[i], budget)) return is_less(a.items()[i], b.items()[i], budget);
  return a.items().size() < b.items().size();
}

bool compare(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  if (op == "==") return are_equal(a, b, budget);
  if (op == "!=") return !are_equal(a, b, budget);
  if (op == "in") return contains(b, a, budget);
  if (op == "not in") return !contains(b, a, budget);
  if (op == "<") return is_less(a, b, budget);
  if (op == ">") return is_less(b, a, budget);
  return op == "<=" ? is_less(a, b, budget) || are_equal(a, b, budget)
                    : is_less(b, a, budget) || are_equal(a, b, budget);
}

Value compute(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return compute_floats(op, to_double(a, op), to_double(b, op));
    return compute_integers(op, to_integer(a, op), to_integer(b, op));
  }
  if (op == "+" && a.is_text() && b.is_text()) {
    if (!a.is_markup() && !b.is_markup()) return checked_text(a.text() + b.text(), budget);
    return {checked_text(escaped_text(a, budget) + escaped_text(b, budget), budget).text(), true};
  }
  const bool are_lists = a.is_kind(SequenceKind::list) && b.is_kind(SequenceKind::list);
  if (op == "+" && (are_lists || (a.is_tuple() && b.is_tuple()))) {
    budget.charge(a.items().size() + b.items().size());
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return {std::move(items), are_lists ? SequenceKind::list : SequenceKind::tuple};
  }
  if (op == "%" && a.is_text()) return format_percent(a, b, budget);
  const auto repeats = [](const Value& value) {
    return value.is_text() || value.is_kind(SequenceKind::list) || value.is_tuple();
  };
  if (op == "*" && repeats(a) && (b.is_integer() || b.is_bool())) return repeat(a, to_integer(b, op), budget);
  if (op == "*" && repeats(b) && (a.is_integer() || a.is_bool())) return repeat(b, to_integer(a, op), budget);
  fail_operands(op, a, b);
}

Value negate(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_float()) return -std::get<double>(value.data);
  return compute_integers("-", 0, to_integer(value, "-"));
}

}  // namespace nibble::jinja
