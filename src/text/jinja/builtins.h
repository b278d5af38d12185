// What every template finds ready: filters, tests, methods of strings and dicts, and functions. Each lives in a table
// in a file of its own; a new one is a line there.
#pragma once

#include <functional>
#include <string>

#include "text/jinja/interpreter.h"
#include "text/jinja/value.h"

namespace nibble::jinja {

// input | name(arguments). Fails if there is no such filter.
Value apply_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& arguments);

// value is name(arguments). Fails if there is no such test.
bool apply_test(Interpreter& interpreter, const std::string& name, const Value& value, const Arguments& arguments);
bool has_filter(const std::string& name);
bool has_test(const std::string& name);

// The method or attribute of that name, bound to the value; undefined if there is none. Fails for methods that would
// change a list or dict: values do not change.
Value method_of(const Value& self, const std::string& name);

// range, namespace, dict, raise_exception, strftime_now, cycler, joiner; undefined for any other name.
Value find_global(const std::string& name);

using FunctionBody = std::function<Value(Interpreter&, const Arguments&)>;
Value make_function(std::string name, FunctionBody body);

}  // namespace nibble::jinja
