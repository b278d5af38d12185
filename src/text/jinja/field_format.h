// Python's "{}".format(value).
#pragma once

#include "text/jinja/value.h"

namespace nibble::jinja {

// format.format(arguments): fields with attributes, subscripts, !r and !s, and specifications with fields in them.
Value format_fields(const Value& format, const Arguments& arguments, Budget& budget);

}  // namespace nibble::jinja
