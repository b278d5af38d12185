// Values as text, letter for letter as Python writes them: str, repr and json.dumps.
#pragma once

#include <optional>
#include <string>

#include "text/jinja/value.h"

namespace nibble::jinja {

// str(value): what {{ value }} prints.
std::string to_text(const Value& value, Budget& budget);

// repr(value): strings in quotes. It is how strings inside a printed list look.
std::string to_repr(const Value& value, Budget& budget);

// The shortest digits that give `number` back, with an exponent below 1e-4 and from 1e16 on.
std::string float_text(double number);

// Whether Python shows the character itself in a repr.
bool is_printable(char32_t c);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // per level; without it everything is on one line
  std::string item_separator = ", ", key_separator = ": ";
};

// json.dumps(value). Fails for a value that JSON does not have.
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace nibble::jinja
