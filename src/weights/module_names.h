// Lists of modules as quantization configurations write them.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/pattern.h"

namespace nibble {

// Names in full, with * and ? as in file names, or "re:" and a regular expression that must match from the start on.
class ModuleNames {
 public:
  // Throws InputError for a pattern that is none, and for more patterns than any tool writes.
  void add(std::string_view text);

  // Whether the list has this module by its full name.
  bool names(std::string_view module) const { return exact_.contains(module); }
  // Whether a pattern stands for it.
  bool covers(std::string_view module) const;
  // Whether the list has it or what it is in: "model.layers.1.mlp" is a list of all its modules.
  bool has(std::string_view module) const;

 private:
  std::set<std::string, std::less<>> exact_;
  std::vector<std::string> globs_;
  std::vector<Pattern> expressions_;
};

}  // namespace nibble
