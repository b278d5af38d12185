// Ctrl-C as a flag that an answer looks at, and as a file descriptor that can be waited for with stdin.
#pragma once

#include <atomic>

namespace nibble {

// While one lives, SIGINT does not end the program. One at a time.
class Interrupts {
 public:
  Interrupts();   // throws RunError if the system has no file descriptors left
  ~Interrupts();  // SIGINT ends the program again
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  const std::atomic<bool>& raised() const;
  int descriptor() const;  // readable once one came, until clear()
  void clear();
};

}  // namespace nibble
