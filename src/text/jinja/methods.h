// The methods of strings, apart from those of lists and dicts.
#pragma once

#include <string>
#include <unordered_map>

#include "text/jinja/builtins.h"

namespace nibble::jinja {

// A method gets the value that it is called on, the call's arguments, and the budget to charge with more than reading
// the value once.
using Method = Value (*)(const Value& self, const Arguments& arguments, Budget& budget);
using MethodTable = std::unordered_map<std::string, Method>;

const MethodTable& text_methods();

}  // namespace nibble::jinja
