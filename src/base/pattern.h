// Patterns from files that nobody vouches for, for short names: matching takes a bounded number of steps and no stack.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace nibble {

// A Perl-compatible regular expression.
class Pattern {
 public:
  // Throws InputError, with the expression and the reason, if it does not compile.
  explicit Pattern(std::string_view expression);

  // Whether it matches from the start of `name` on; it need not reach the end. Throws InputError, with the expression,
  // if that takes more steps than any sensible pattern needs.
  bool matches_start(std::string_view name) const;

 private:
  std::string expression_;
  std::shared_ptr<const void> code_;
};

// Whether a pattern in which * stands for any characters, and ? for one, matches the whole of `name`.
bool glob_matches(std::string_view glob, std::string_view name);

}  // namespace nibble
