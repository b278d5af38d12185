#include "weights/module_names.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

// Each is tried with each module of a model, and a model may have 50,000.
constexpr size_t kMaxPatterns = 500;

}  // namespace

void ModuleNames::add(std::string_view text) {
  if (text.starts_with("re:"))
    expressions_.emplace_back(text.substr(3));
  else if (text.find_first_of("*?") != std::string_view::npos)
    globs_.emplace_back(text);
  else
    exact_.emplace(text);
  if (globs_.size() + expressions_.size() > kMaxPatterns)
    throw_input_error("more than {} patterns in one list of modules", kMaxPatterns);
}

bool ModuleNames::covers(std::string_view module) const {
  return std::ranges::any_of(globs_, [&](const std::string& glob) { return glob_matches(glob, module); }) ||
         std::ranges::any_of(expressions_, [&](const Pattern& pattern) { return pattern.matches_start(module); });
}

bool ModuleNames::has(std::string_view module) const {
  if (covers(module)) return true;
  for (size_t end = module.size(); end != std::string_view::npos;
       end = end == 0 ? end - 1 : module.rfind('.', end - 1)) {
    const std::string_view part = module.substr(0, end);
    if (names(part)) return true;
    if (std::ranges::any_of(globs_, [&](const std::string& glob) { return glob_matches(glob, part); })) return true;
  }
  return false;
}

}  // namespace nibble
