// Errors of parts that do not know which file they read get its name from the part that does.
#pragma once

#include <string_view>
#include <utility>

#include "base/error.h"

namespace nibble {

// Calls `work` and returns what it returns. An InputError that it throws gets "{name}: " in front of its message.
template <class Work>
decltype(auto) naming(std::string_view name, Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const InputError& error) {
    throw_input_error("{}: {}", name, error.what());
  }
}

}  // namespace nibble
