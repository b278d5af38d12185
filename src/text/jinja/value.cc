#include "text/jinja/value.h"

#include <algorithm>
#include <limits>

#include "text/utf8.h"

namespace nibble::jinja {

namespace {

int checked_nesting(int inner) {
  if (inner >= kMaxNesting) fail("values are nested more than {} deep", kMaxNesting);
  return inner + 1;
}

double number_of(const Value& value) {
  if (value.is_bool()) return std::get<bool>(value.data) ? 1 : 0;
  return value.is_integer() ? static_cast<double>(std::get<int64_t>(value.data)) : std::get<double>(value.data);
}

bool are_equal_scalars(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return number_of(a) == number_of(b);
    return to_integer(a, "") == to_integer(b, "");
  }
  if (a.data.index() != b.data.index()) return false;
  if (a.is_text()) return a.text() == b.text();
  if (a.is_object()) return &a.object() == &b.object();
  return a.is_none() || a.is_undefined();
}

}  // namespace

int nesting_of(const Value& value) {
  if (value.is_list()) return std::get<ListPointer>(value.data)->nesting;
  if (value.is_object()) return value.object().nesting;
  return value.is_dict() ? value.dict().nesting : 0;
}

int nesting_around(const std::vector<Value>& values) {
  int inner = 0;
  for (const Value& value : values) inner = std::max(inner, nesting_of(value));
  return checked_nesting(inner);
}

Value::Value(std::vector<Value> items, SequenceKind kind) {
  const int nesting = nesting_around(items);
  data = std::make_shared<const List>(List{std::move(items), kind, nesting});
}

Value::Value(Dict dict) {
  int nesting = 0;
  for (const auto& [key, value] : dict.items) nesting = std::max(nesting, nesting_of(value));
  dict.nesting = checked_nesting(nesting);
  data = std::make_shared<const Dict>(std::move(dict));
}

const std::vector<Value>& Value::items() const { return std::get<ListPointer>(data)->items; }

SequenceKind Value::kind() const { return std::get<ListPointer>(data)->kind; }

bool Value::is_kind(SequenceKind kind) const { return is_list() && std::get<ListPointer>(data)->kind == kind; }

bool Value::is_indexed() const { return is_kind(SequenceKind::list) || is_tuple() || is_kind(SequenceKind::range); }

void Dict::set_text(const Value& key, Value value) {
  const auto [known, is_new] = index_.emplace(key.text(), items.size());
  if (is_new) {
    items.emplace_back(key, std::move(value));
  } else {
    items[known->second].second = std::move(value);
  }
}

void Dict::set(const Value& key, Value value, Budget& budget) {
  if (key.is_list() || key.is_dict() || key.is_object() || key.is_undefined()) {
    fail("a {} cannot be the key of a dict", type_name(key));
  }
  if (key.is_text()) {
    budget.charge_text(key.text().size());
    set_text(key, std::move(value));
    return;
  }
  budget.charge(items.size());
  for (auto& [known, old] : items) {
    if (are_equal_scalars(known, key)) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(key, std::move(value));
}

const Value* Dict::find(const std::string& key) const {
  const auto known = index_.find(key);
  return known == index_.end() ? nullptr : &items[known->second].second;
}

const Value* Dict::find(const Value& key, Budget& budget) const {
  if (key.is_text()) {
    budget.charge_text(key.text().size());
    return find(key.text());
  }
  if (index_.size() == items.size()) return nullptr;  // only strings in it
  budget.charge(items.size());
  for (const auto& [known, value] : items)
    if (are_equal_scalars(known, key)) return &value;
  return nullptr;
}

std::vector<Value> Arguments::bind(std::string_view function, std::initializer_list<std::string_view> parameters,
                                   size_t num_required) const {
  if (positional.size() > parameters.size()) {
    fail("{}: {} arguments, at most {} expected", function, positional.size(), parameters.size());
  }
  std::vector<Value> bound(positional);
  bound.resize(parameters.size());
  std::vector<bool> is_given(parameters.size());
  std::fill_n(is_given.begin(), positional.size(), true);
  for (const auto& [name, value] : named) {
    const size_t at = std::find(parameters.begin(), parameters.end(), name) - parameters.begin();
    if (at == parameters.size()) fail("{}: no parameter is called '{}'", function, name);
    if (is_given[at]) fail("{}: '{}' is given twice", function, name);
    is_given[at] = true;
    bound[at] = value;
  }
  if (!std::all_of(is_given.begin(), is_given.begin() + static_cast<ptrdiff_t>(num_required), [](bool b) { return b; }))
    fail("{}: {} arguments, at least {} expected", function, positional.size() + named.size(), num_required);
  return bound;
}

Value undefined(std::string reason) {
  Value value;
  value.data = Undefined{std::make_shared<const std::string>(std::move(reason))};
  return value;
}

Value from_json(const nlohmann::ordered_json& json, int nesting) {
  if (nesting > kMaxNesting) fail("the input is nested more than {} deep", kMaxNesting);
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean: return json.get<bool>();
    case nlohmann::ordered_json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      return is_utf8(text) ? text : replace_invalid_utf8(text);
    }
    case nlohmann::ordered_json::value_t::number_float: return json.get<double>();
    case nlohmann::ordered_json::value_t::number_integer: return json.get<int64_t>();
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        fail("the input has the number {}, which does not fit a signed 64-bit integer", json.get<uint64_t>());
      }
      return json.get<int64_t>();
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, nesting + 1));
      return items;
    }
    case nlohmann::ordered_json::value_t::object: {
      Dict dict;
      for (const auto& [key, value] : json.items()) dict.set(key, from_json(value, nesting + 1));
      return dict;
    }
    default: return None{};
  }
}

std::string_view type_name(const Value& value) {
  static constexpr std::string_view names[] = {"Undefined", "None", "bool", "int", "float", "str", "list", "dict"};
  if (value.is_object()) return value.object().type();
  static constexpr std::string_view sequences[] = {"list",      "tuple",       "tuple",      "range",
                                                   "dict_keys", "dict_values", "dict_items", "generator"};
  if (value.is_list()) return sequences[static_cast<size_t>(value.kind())];
  if (value.is_markup()) return "Markup";
  return names[value.data.index()];
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number()) return number_of(value) != 0;
  if (value.is_text()) return !value.text().empty();
  if (value.is_list()) return value.is_generator() || !value.items().empty();
  return !value.is_dict() || !value.dict().items.empty();
}

bool are_equal(const Value& a, const Value& b, Budget& budget) {
  budget.charge(1);
  if (a.is_list() && b.is_list()) {
    if (&a.items() == &b.items()) return true;
    if (a.kind() != b.kind() && !(a.is_tuple() && b.is_tuple())) return false;
    if (a.is_generator() || a.is_kind(SequenceKind::values) || a.items().size() != b.items().size()) return false;
    if (a.is_indexed()) {
      for (size_t i = 0; i < a.items().size(); i++)
        if (!are_equal(a.items()[i], b.items()[i], budget)) return false;
      return true;
    }
    const auto is_in_b = [&](const Value& item) {  // keys and items are sets
      return std::any_of(b.items().begin(), b.items().end(),
                         [&](const Value& other) { return are_equal(item, other, budget); });
    };
    return std::all_of(a.items().begin(), a.items().end(), is_in_b);
  }
  if (a.is_dict() && b.is_dict()) {
    if (a.dict().items.size() != b.dict().items.size()) return false;
    for (const auto& [key, value] : a.dict().items) {
      const Value* other = b.dict().find(key, budget);
      if (other == nullptr || !are_equal(value, *other, budget)) return false;
    }
    return true;
  }
  if (a.is_text() && b.is_text()) budget.charge_text(std::min(a.text().size(), b.text().size()));
  return are_equal_scalars(a, b);
}

int64_t to_integer(const Value& value, std::string_view what) {
  if (value.is_bool()) return std::get<bool>(value.data) ? 1 : 0;
  if (!value.is_integer()) fail("{}: an integer expected, not {}", what, type_name(value));
  return std::get<int64_t>(value.data);
}

}  // namespace nibble::jinja
