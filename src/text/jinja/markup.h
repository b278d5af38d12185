// Text that HTML may take as it is.
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace nibble::jinja {

// `text` with & < > " ' as HTML has them.
std::string escape_markup(std::string_view text);

// What a markup value makes of a value that is put into it.
std::string escaped_text(const Value& value, Budget& budget);

}  // namespace nibble::jinja
