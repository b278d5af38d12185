// Tokens to a tree. Precedence, from weak to strong: if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary
// minus; attributes, subscripts and calls, then filters and tests, bind to what stands before them.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace nibble::jinja {

// Fails (see value.h) with the line in `line` if the template is not valid.
Block parse_template(std::string_view source, int& line);

}  // namespace nibble::jinja
