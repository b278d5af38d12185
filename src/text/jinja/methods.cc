// Methods of lists and dicts, as in Python, and the look-up of all methods.
#include "text/jinja/methods.h"

#include <algorithm>
#include <unordered_map>

#include "text/jinja/markup.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {

namespace {

Value items_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("items", {});
  budget.charge(self.dict().items.size());
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict().items) pairs.push_back(Value({key, value}, SequenceKind::tuple));
  return {std::move(pairs), SequenceKind::items};
}

template <bool keys>
Value keys_method(const Value& self, const Arguments& arguments, Budget& budget) {
  arguments.bind("keys", {});
  budget.charge(self.dict().items.size());
  std::vector<Value> list;
  for (const auto& [key, value] : self.dict().items) list.push_back(keys ? key : value);
  return {std::move(list), keys ? SequenceKind::keys : SequenceKind::values};
}

Value get_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("get", {"/key", "/default"}, 1);
  check_hashable(bound[0], "get");
  if (const Value* found = self.dict().find(bound[0], budget)) return *found;
  return bound[1].is_undefined() && arguments.positional.size() + arguments.named.size() < 2 ? Value(None{}) : bound[1];
}

Value copy_method(const Value& self, const Arguments&, Budget&) { return self; }

Value list_count_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const Value item = arguments.bind("count", {"/value"}, 1)[0];
  int64_t count = 0;
  for (const Value& known : self.items()) count += are_equal(known, item, budget) ? 1 : 0;
  return count;
}

Value list_index_method(const Value& self, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("index", {"/value", "/start", "/stop"}, 1);
  const auto size = static_cast<int64_t>(self.items().size());
  const auto clamp = [&](size_t i, int64_t fallback) {
    const int64_t at = arguments.positional.size() > i ? to_integer(bound[i], "index") : fallback;
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  for (int64_t i = clamp(1, 0), stop = clamp(2, size); i < stop; i++)
    if (are_equal(self.items()[i], bound[0], budget)) return i;
  fail("index: the value is not in the list");
}

const MethodTable& dict_methods() {
  static const MethodTable table = {
      {"items", items_method}, {"keys", keys_method<true>}, {"values", keys_method<false>},
      {"get", get_method},     {"copy", copy_method},
  };
  return table;
}

const MethodTable& list_methods() {
  static const MethodTable table = {
      {"count", list_count_method},
      {"index", list_index_method},
      {"copy", copy_method},
  };
  return table;
}

const MethodTable* methods_of(const Value& self) {
  if (self.is_text()) return &text_methods();
  if (self.is_dict()) return &dict_methods();
  return self.is_indexed() ? &list_methods() : nullptr;
}

// Methods that the sandbox hides because they change the value.
bool is_change(const Value& self, const std::string& name) {
  static constexpr std::string_view of_lists[] = {"append", "clear", "pop",    "reverse",
                                                  "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
  if (self.is_dict()) return std::find(std::begin(of_dicts), std::end(of_dicts), name) != std::end(of_dicts);
  return self.is_kind(SequenceKind::list) &&
         std::find(std::begin(of_lists), std::end(of_lists), name) != std::end(of_lists);
}

// What a method of a markup string gives is markup, too, but for numbers.
Value as_markup(const Value& value) {
  if (value.is_text()) return {value.text(), true};
  if (!value.is_list()) return value;
  std::vector<Value> items;
  for (const Value& item : value.items()) items.push_back(as_markup(item));
  return {std::move(items), value.kind()};
}

// The method itself, with what it does to markup and to undefined arguments.
Value call_method(const Value& self, const std::string& name, Method method, const Arguments& given, Budget& budget) {
  budget.charge(1);
  if (self.is_text()) budget.charge_text(self.text().size());  // most methods read it
  if (!self.is_text() || name == "format" || name == "format_map") return method(self, given, budget);
  Arguments arguments = given;
  const bool inserts = name == "replace" || name == "ljust" || name == "rjust" || name == "center";
  if (self.is_markup() && inserts && arguments.positional.size() > 1)
    arguments.positional[1] = escaped_text(arguments.positional[1], budget);
  for (const Value& argument : arguments.positional)
    if (argument.is_undefined() && name != "join") fail_undefined(argument);
  if (!self.is_markup()) return method(self, arguments, budget);
  return as_markup(method(self, arguments, budget));
}

}  // namespace

bool has_attribute(const Value& self, const std::string& name) {
  if (self.is_object()) return !self.object().attribute(name).is_undefined();
  if (self.is_kind(SequenceKind::group) && (name == "grouper" || name == "list")) return true;
  if (name.starts_with("__") && name.ends_with("__") &&
      (name == "__class__" || name == "__init__" || name == "__doc__" || name == "__len__"))
    return true;
  const MethodTable* table = methods_of(self);
  return (table != nullptr && table->contains(name)) || is_change(self, name);
}

Value method_of(const Value& self, const std::string& name) {
  if (self.is_object()) return self.object().attribute(name);
  if (self.is_kind(SequenceKind::group) && (name == "grouper" || name == "list")) return self.items()[name == "list"];
  const MethodTable* table = methods_of(self);
  const auto known = table == nullptr ? MethodTable::const_iterator() : table->find(name);
  if (table != nullptr && known != table->end()) {
    const auto body = [self, name, method = known->second](Interpreter& interpreter, const Arguments& arguments) {
      return call_method(self, name, method, arguments, interpreter.budget());
    };
    return make_function(name, body, nesting_of(self));  // no deeper: the deepest dict has methods, too
  }
  if (is_change(self, name)) {
    return undefined(
        fmt::format("{}.{}: a template cannot change a list or dict; make a new one with set", type_name(self), name));
  }
  return undefined(fmt::format("'{}' of a {} is not for templates", name, type_name(self)));
}

}  // namespace nibble::jinja
