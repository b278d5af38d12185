// The two ways in which Nibble fails. A message names the thing, both values, and what to do:
//   "{file}: tensor {name}: shape [64, 48] in the file, [64, 96] expected; the checkpoint does not fit its config.json"
#pragma once

#include <stdexcept>
#include <utility>

#include <fmt/format.h>

namespace nibble {

// The input or the arguments are wrong: trying again changes nothing. Programs exit with 2.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The input was fine, but the work failed (no memory, a full disk). Programs exit with 1.
class RunError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void throw_input_error(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void throw_run_error(fmt::format_string<Args...> format, Args&&... args) {
  throw RunError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nibble
