// Messages from stdin, as a person types them or a script pipes them: one a line. A line that ends with a backslash
// goes on in the next; """ begins a message of many lines, which ends with """.
#pragma once

#include <optional>
#include <string>

#include "interrupts.h"

namespace nibble {

class LineReader {
 public:
  // `prompts`: whether to ask for input on stderr. `interrupts`, if given, outlives the reader.
  LineReader(bool prompts, const Interrupts* interrupts) : prompts_(prompts), interrupts_(interrupts) {}

  enum class Got : uint8_t { message, end, interrupted };

  // Waits for the next message. `interrupted`: Ctrl-C came first; what was typed is gone. Throws InputError for a line
  // that is longer than 64 MiB, or so long that a terminal may have cut it.
  Got read(std::string& message);

 private:
  Got read_line(const char* prompt, std::string& line);

  // Waits for stdin. False if Ctrl-C came first.
  bool wait() const;

  bool prompts_, at_end_ = false;
  const Interrupts* interrupts_;
  std::string buffer_;  // read, and not yet taken
};

}  // namespace nibble
