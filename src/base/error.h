// The two ways in which Nibble fails. A message names the thing, both values, and what to do:
//   "{file}: tensor {name}: shape [64, 48] in the file, [64, 96] expected; the checkpoint does not fit its config.json"
#pragma once

#include <stdexcept>
#include <string>
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

// `message` with \x00 and the like for control characters, line ends and tabs excepted: a message quotes names from files,
// and a NUL would end it, an escape sequence drive the terminal.
std::string without_control_characters(std::string message);

template <class... Args>
[[noreturn]] void throw_input_error(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(without_control_characters(fmt::format(format, std::forward<Args>(args)...)));
}

template <class... Args>
[[noreturn]] void throw_run_error(fmt::format_string<Args...> format, Args&&... args) {
  throw RunError(without_control_characters(fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace nibble
