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

// The method or attribute of that name, bound to the value. Undefined if there is none, and for what the sandbox does
// not let a template see: methods that would change a list or dict, and names that begin with an underscore.
Value method_of(const Value& self, const std::string& name);
bool has_attribute(const Value& self, const std::string& name);  // in Python; what the sandbox hides is there, too

// range, namespace, dict, raise_exception, strftime_now, cycler, joiner; undefined for any other name.
Value find_global(const std::string& name);

// Fails for the name of a namespace's entry that begins with an underscore.
void check_namespace_name(const std::string& name);

// `nesting` is that of the values that the body holds (Object::nesting).
using FunctionBody = std::function<Value(Interpreter&, const Arguments&)>;
Value make_function(std::string name, FunctionBody body, int nesting = 0);

}  // namespace nibble::jinja
