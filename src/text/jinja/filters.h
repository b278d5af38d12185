// The tables of the filters, which apply_filter looks up: each in a file of its own.
#pragma once

#include <string>
#include <unordered_map>

#include "text/jinja/builtins.h"

namespace nibble::jinja {

using Filter = Value (*)(Interpreter& interpreter, const Value& input, const Arguments& arguments);
using FilterTable = std::unordered_map<std::string, Filter>;

const FilterTable& text_filters();
const FilterTable& number_filters();
const FilterTable& sequence_filters();

}  // namespace nibble::jinja
