// Filters on sequences. Where Jinja makes a generator, these make the list at once.
#include <algorithm>
#include <charconv>
#include <utility>

#include "text/jinja/case.h"
#include "text/jinja/filters.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"
#include "text/jinja/strings.h"

namespace nibble::jinja {

namespace {

// item.a.b for the attribute "a.b"; numbers are subscripts. `fallback`, if defined, takes the place of each part that
// is missing.
Value dig(const Value& item, const Value& attribute, Budget& budget, const Value& fallback = {}) {
  if (attribute.is_integer()) {
    const Value found = get_item(item, attribute, budget);
    return found.is_undefined() && !fallback.is_undefined() ? fallback : found;
  }
  if (!attribute.is_text()) fail("the name of an attribute is {}, a string expected", type_name(attribute));
  Value found = item;
  for (const std::string_view part : split(attribute.text(), ".", -1)) {
    int64_t index = 0;
    const auto number = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_number = !part.empty() && number.ec == std::errc() && number.ptr == part.data() + part.size();
    found = get_item(found, is_number ? Value(index) : Value(part), budget);
    if (found.is_undefined() && !fallback.is_undefined()) found = fallback;
  }
  return found;
}

Value keyed(const Value& value, bool ignores_case, Budget& budget) {
  return ignores_case && value.is_text() ? Value(to_lower(to_text(value, budget))) : value;
}

Value key_of(const Value& item, const Value& attribute, bool ignores_case, Budget& budget) {
  budget.charge(1);
  return keyed(is_given(attribute) ? dig(item, attribute, budget) : item, ignores_case, budget);
}

// Sorts by keys, the first least; equal ones stay in order.
void sort_by(std::vector<Value>& items, std::vector<Value> keys, bool is_reversed, Budget& budget) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  const auto comes_before = [&](size_t a, size_t b) {
    if (is_reversed ? is_less(keys[b], keys[a], budget) : is_less(keys[a], keys[b], budget)) return true;
    const bool comes_after = is_reversed ? is_less(keys[a], keys[b], budget) : is_less(keys[b], keys[a], budget);
    return !comes_after && a < b;
  };
  // A heap, because its steps stay within bounds even where NaN makes the order contradict itself.
  std::make_heap(order.begin(), order.end(), comes_before);
  std::sort_heap(order.begin(), order.end(), comes_before);
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t i : order) sorted.push_back(std::move(items[i]));
  items = std::move(sorted);
}

Value count(Interpreter&, const Value& input, const Arguments&) { return length(input); }

Value first(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_generator()) {  // takes one item and leaves the others
    size_t& num_taken = std::get<ListPointer>(input.data)->num_taken;
    if (num_taken < input.items().size()) return input.items()[num_taken++];
  }
  const auto items = iterate(input, interpreter.budget());
  return items.empty() ? undefined("no first item: the sequence is empty") : items.front();
}

Value last(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_generator()) fail("last: a list expected, not a generator; put 'list' before it");
  const auto items = iterate(input, interpreter.budget());
  return items.empty() ? undefined("no last item: the sequence is empty") : items.back();
}

Value list(Interpreter& interpreter, const Value& input, const Arguments&) {
  return iterate(input, interpreter.budget());
}

Value items(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_undefined()) return std::vector<Value>();
  if (!input.is_dict()) fail("items: a dict expected, not {}", type_name(input));
  return {interpreter.call(method_of(input, "items"), {}).items(), SequenceKind::generator};
}

Value join(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("join", {"d", "attribute"});
  Budget& budget = interpreter.budget();
  const std::string separator = to_text(bound[0], budget);
  std::string text;
  bool is_first = true;
  for (const Value& item : iterate(input, budget)) {
    if (!is_first) text += separator;
    is_first = false;
    text += to_text(is_given(bound[1]) ? dig(item, bound[1], budget) : item, budget);
    budget.charge_text(separator.size());
    if (text.size() > kMaxText) fail("join: the text grows beyond {} bytes", kMaxText);
  }
  budget.charge_text(text.size());
  return text;
}

Value reverse(Interpreter& interpreter, const Value& input, const Arguments&) {
  auto reversed = iterate(input, interpreter.budget());
  std::reverse(reversed.begin(), reversed.end());
  if (!input.is_text())
    return {std::move(reversed), input.is_generator() ? SequenceKind::list : SequenceKind::generator};
  std::string text;
  for (const Value& character : reversed) text += character.text();
  return {std::move(text), input.is_markup()};
}

Value sort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("sort", {"reverse", "case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  auto sorted = iterate(input, budget);
  std::vector<Value> keys;
  for (const Value& item : sorted) {
    // A list of keys: "a,b" sorts by a, then by b. Lists compare equal items before they order the others.
    std::vector<Value> several;
    if (bound[2].is_text()) {
      for (const std::string_view name : split(bound[2].text(), ",", -1))
        several.push_back(key_of(item, name, !is_true(bound[1]), budget));
    } else {
      several.push_back(key_of(item, bound[2], !is_true(bound[1]), budget));
    }
    keys.emplace_back(std::move(several));
  }
  sort_by(sorted, std::move(keys), is_true(bound[0]), budget);
  return sorted;
}

Value dict_sort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("dictsort", {"case_sensitive", "by", "reverse"});
  const bool by_value = bound[1].is_text() && bound[1].text() == "value";
  if (is_given(bound[1]) && !by_value && !(bound[1].is_text() && bound[1].text() == "key")) {
    fail("dictsort: by 'key' or by 'value'");
  }
  if (!input.is_dict()) fail("dictsort: a dict expected, not {}", type_name(input));
  const Value pairs = items(interpreter, input, {});
  std::vector<Value> sorted = pairs.items(), keys;
  Budget& budget = interpreter.budget();
  for (const Value& pair : sorted) keys.push_back(keyed(pair.items()[by_value ? 1 : 0], !is_true(bound[0]), budget));
  sort_by(sorted, std::move(keys), is_true(bound[2]), budget);
  return sorted;
}

Value unique(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("unique", {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  std::vector<Value> kept, seen;
  for (const Value& item : iterate(input, budget)) {
    const Value key = key_of(item, bound[1], !is_true(bound[0]), budget);
    check_hashable(key, "unique");
    const auto is_it = [&](const Value& known) { return are_equal(known, key, budget); };
    if (std::any_of(seen.begin(), seen.end(), is_it)) continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return {std::move(kept), SequenceKind::generator};
}

template <bool takes_largest>
Value extreme(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("min", {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  Value best = undefined("no smallest or largest item: the sequence is empty"), best_key;
  bool is_first = true;
  for (const Value& item : iterate(input, budget)) {
    const Value key = key_of(item, bound[1], !is_true(bound[0]), budget);
    const bool is_better = std::exchange(is_first, false) ||
                           (takes_largest ? is_less(best_key, key, budget) : is_less(key, best_key, budget));
    if (!is_better) continue;
    best = item;
    best_key = key;
  }
  return best;
}

Value sum(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("sum", {"attribute", "start"});
  Value total = is_given(bound[1]) ? bound[1] : Value(0);
  if (total.is_text()) fail("sum: strings are joined with 'join'");
  for (const Value& item : iterate(input, interpreter.budget())) {
    const Value part = is_given(bound[0]) ? dig(item, bound[0], interpreter.budget()) : item;
    total = compute("+", total, part, interpreter.budget());
  }
  return total;
}

// What map, select and their kin go over: nothing for an input that counts as false, even if it is no sequence.
std::vector<Value> iterate_if_true(const Value& input, Budget& budget) {
  return is_true(input) ? iterate(input, budget) : std::vector<Value>();
}

// The arguments from the i-th on, for the filter or test that map, select and their kin apply to each item.
Arguments rest_of(const Arguments& arguments, size_t i) {
  return {{arguments.positional.begin() + static_cast<ptrdiff_t>(std::min(i, arguments.positional.size())),
           arguments.positional.end()},
          arguments.named};
}

Value map(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Budget& budget = interpreter.budget();
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    const auto bound = arguments.bind("map", {"attribute", "default"});
    if (!is_given(bound[0])) fail("map: the name of a filter, or attribute=…, expected");
    for (const Value& item : iterate_if_true(input, budget))
      mapped.push_back(dig(item, bound[0], budget, is_given(bound[1]) ? bound[1] : Value()));
    return {std::move(mapped), SequenceKind::generator};
  }
  if (!arguments.positional[0].is_text()) fail("map: the name of a filter expected");
  const Arguments rest = rest_of(arguments, 1);
  for (const Value& item : iterate_if_true(input, budget))
    mapped.push_back(apply_filter(interpreter, arguments.positional[0].text(), item, rest));
  return {std::move(mapped), SequenceKind::generator};
}

template <bool by_attribute, bool keeps>
Value choose(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Budget& budget = interpreter.budget();
  const auto& given = arguments.positional;
  constexpr size_t kTest = by_attribute ? 1 : 0;  // which argument names the test
  if (by_attribute && given.empty()) fail("selectattr: the name of an attribute expected");
  if (given.size() > kTest && !given[kTest].is_text()) fail("select: the name of a test expected");
  const Arguments rest = rest_of(arguments, kTest + 1);
  std::vector<Value> chosen;
  for (const Value& item : iterate_if_true(input, budget)) {
    const Value value = by_attribute ? dig(item, given[0], budget) : item;
    const bool passes =
        given.size() > kTest ? apply_test(interpreter, given[kTest].text(), value, rest) : is_true(value);
    if (passes == keeps) chosen.push_back(item);
  }
  return {std::move(chosen), SequenceKind::generator};
}

Value group_by(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("groupby", {"attribute", "default", "case_sensitive"}, 1);
  const Value fallback = is_given(bound[1]) ? bound[1] : Value();
  Budget& budget = interpreter.budget();
  std::vector<Value> sorted = iterate(input, budget), keys;
  const auto key = [&](const Value& item, bool ignores_case) {
    return keyed(dig(item, bound[0], budget, fallback), ignores_case, budget);
  };
  for (const Value& item : sorted) keys.push_back(key(item, !is_true(bound[2])));
  sort_by(sorted, std::move(keys), false, budget);
  std::vector<Value> groups;
  for (size_t i = 0; i < sorted.size();) {
    std::vector<Value> group;
    const Value name = key(sorted[i], false), folded = keyed(name, !is_true(bound[2]), budget);
    for (; i < sorted.size() && are_equal(key(sorted[i], !is_true(bound[2])), folded, budget); i++)
      group.push_back(sorted[i]);
    groups.push_back(Value({name, Value(std::move(group))}, SequenceKind::group));
  }
  return groups;
}

// Whether batch and slice are to fill the last parts with the value: none, or nothing given, is no value.
bool fills(const Arguments& arguments, const Value& value) {
  return !value.is_none() && arguments.positional.size() + arguments.named.size() > 1;
}

Value batch(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("batch", {"linecount", "fill_with"});
  const int64_t size = to_integer(bound[0], "batch");
  if (size > 100'000) fail("batch: a size of {}, at most 100000 expected", size);
  std::vector<Value> batches, current;
  for (const Value& item : iterate(input, interpreter.budget())) {
    if (static_cast<int64_t>(current.size()) == size) batches.emplace_back(std::exchange(current, {}));
    current.push_back(item);
  }
  if (!current.empty()) {
    if (fills(arguments, bound[1]) && static_cast<int64_t>(current.size()) < size) {
      interpreter.budget().charge(size);
      current.resize(size, bound[1]);
    }
    batches.emplace_back(std::move(current));
  }
  return {std::move(batches), SequenceKind::generator};
}

// Cuts into `slices` parts of nearly equal size, the longer ones first.
Value slice_filter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = arguments.bind("slice", {"slices", "fill_with"});
  const int64_t slices = to_integer(bound[0], "slice");
  if (slices < 1 || slices > 100'000) fail("slice: {} slices, 1 to 100000 expected", slices);
  const auto all = iterate(input, interpreter.budget());
  interpreter.budget().charge(slices);
  const size_t each = all.size() / slices, longer = all.size() % slices;
  std::vector<Value> parts;
  size_t at = 0;
  for (size_t i = 0; i < static_cast<size_t>(slices); i++) {
    const size_t size = each + (i < longer ? 1 : 0);
    std::vector<Value> part(all.begin() + static_cast<ptrdiff_t>(at), all.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
    if (fills(arguments, bound[1]) && i >= longer) part.push_back(bound[1]);
    parts.emplace_back(std::move(part));
  }
  return {std::move(parts), SequenceKind::generator};
}

Value attribute(Interpreter&, const Value& input, const Arguments& arguments) {
  const Value name = arguments.bind("attr", {"name"})[0];
  if (!name.is_text()) fail("attr: a string expected, not {}", type_name(name));
  if (input.is_undefined()) fail_undefined(input);
  Value found = method_of(input, name.text());  // unlike a dot, it does not look into dicts
  return !has_attribute(input, name.text())
             ? undefined(fmt::format("'{}' has no attribute '{}'", type_name(input), name.text()))
             : found;
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable table = {
      {"length", count},
      {"count", count},
      {"first", first},
      {"last", last},
      {"list", list},
      {"items", items},
      {"join", join},
      {"reverse", reverse},
      {"sort", sort},
      {"dictsort", dict_sort},
      {"unique", unique},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"sum", sum},
      {"map", map},
      {"select", choose<false, true>},
      {"reject", choose<false, false>},
      {"selectattr", choose<true, true>},
      {"rejectattr", choose<true, false>},
      {"groupby", group_by},
      {"batch", batch},
      {"slice", slice_filter},
      {"attr", attribute},
  };
  return table;
}

}  // namespace nibble::jinja
