// What operators, subscripts and loops do to values, as in Python.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::jinja {

// value.name: a method or attribute, or the entry of a dict with that key. Undefined if there is neither.
Value get_attribute(const Value& value, const std::string& name);

// value[key]: an entry or element, or else a method or attribute. Undefined if there is neither.
Value get_item(const Value& value, const Value& key, Budget& budget);

// value[start:stop:step], each none where nothing stands.
Value slice(const Value& value, const Value& start, const Value& stop, const Value& step, Budget& budget);

// What a loop over the value meets: elements, keys of a dict, characters of a string; nothing for undefined.
// A generator gives what it has left, and is empty then.
std::vector<Value> iterate(const Value& value, Budget& budget);

int64_t length(const Value& value);

// Fails for what Python has no hash of: lists, dicts and tuples that hold such.
void check_hashable(const Value& value, std::string_view what);

bool contains(const Value& container, const Value& item, Budget& budget);
bool is_less(const Value& a, const Value& b, Budget& budget);
bool compare(std::string_view op, const Value& a, const Value& b, Budget& budget);   // == != < <= > >= in, not in
Value compute(std::string_view op, const Value& a, const Value& b, Budget& budget);  // + - * / // % **
Value negate(const Value& value);

// Fails with the reason why `value` is undefined, for a use that needs a value.
[[noreturn]] void fail_undefined(const Value& value);

double to_double(const Value& value, std::string_view what);

}  // namespace nibble::jinja
