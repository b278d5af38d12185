// Which modules a configuration leaves as they were: names with * for anything, or regular expressions. The patterns come
// with a checkpoint and are not trusted, so a search has a limit; std::regex has none, and takes for ever on (a*)*b.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace nibble {

class ModulePattern {
 public:
  // "re:…" is a regular expression that must match from the start of the name on; anything else is a whole name, in
  // which * stands for any text. Throws InputError, whose message starts with `where`, if it does not compile.
  ModulePattern(std::string_view pattern, std::string_view where);

  // Throws InputError if the search takes more steps than any sensible pattern needs.
  bool matches(std::string_view module) const;

 private:
  std::string where_;
  std::shared_ptr<void> code_;  // pcre2_code
};

}  // namespace nibble
