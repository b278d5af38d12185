// The two halves of the filters: those on texts and numbers, and those on sequences.
#pragma once

#include <string>
#include <unordered_map>

#include "text/jinja/builtins.h"

namespace nibble::jinja {

using Filter = Value (*)(Interpreter& interpreter, const Value& input, const Arguments& arguments);
using FilterTable = std::unordered_map<std::string, Filter>;

const FilterTable& text_filters();
const FilterTable& sequence_filters();

}  // namespace nibble::jinja
