// Cuts a template into tokens, with Jinja's rules for the white space around tags: `-` inside a tag strips all of it,
// a block tag or comment alone on its line leaves no trace of the line (trim_blocks and lstrip_blocks), and `+` keeps
// it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

enum class TokenKind {
  text,            // what is printed as it stands
  block_begin,     // {%
  block_end,       // %}
  variable_begin,  // {{
  variable_end,    // }}
  name,
  string,  // its value, escapes resolved
  integer,
  floating,
  op,
  end,  // of the template
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// Fails (see value.h) with the line in `line` if the template has a character or an open tag that it cannot have.
std::vector<Token> tokenize(std::string_view source, int& line);

}  // namespace nibble::jinja
