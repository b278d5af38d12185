#include "base/error.h"

#include <algorithm>

namespace nibble {

std::string without_control_characters(std::string message) {
  const auto is_control = [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F;
  };
  if (std::ranges::none_of(message, is_control)) return message;
  std::string printable;
  for (const char c : message)
    if (is_control(c))
      printable += fmt::format("\\x{:02X}", static_cast<unsigned char>(c));
    else
      printable += c;
  return printable;
}

}  // namespace nibble
