// Python's two ways to put values into a text: "%s" % value and "{}".format(value), with their specifications.
#pragma once

#include <string>

#include "text/jinja/value.h"

namespace nibble::jinja {

// format % value: %s %r %a %c %d %i %u %x %X %o %f %F %e %E %g %G %% with flags, width, precision and (name). A markup
// format escapes what it is given.
Value format_percent(const Value& format, const Value& value, Budget& budget);

// format(value, spec): fill and alignment, sign, '#', '0', width, ',' or '_', precision and type.
std::string format_value(const Value& value, const std::string& spec, Budget& budget);

// format.format(arguments): fields with attributes, subscripts, !r and !s, and specifications with fields in them.
Value format_fields(const Value& format, const Arguments& arguments, Budget& budget);

// `text` with & < > " ' as HTML has them.
std::string escape_markup(std::string_view text);

// What a markup value makes of a value that is put into it.
std::string escaped_text(const Value& value, Budget& budget);

}  // namespace nibble::jinja
