// Python's "%s" % value.
#pragma once

#include "text/jinja/value.h"

namespace nibble::jinja {

// format % value: %s %r %a %c %d %i %u %x %X %o %f %F %e %E %g %G %% with flags, width, precision and (name). A markup
// format escapes what it is given.
Value format_percent(const Value& format, const Value& value, Budget& budget);

}  // namespace nibble::jinja
