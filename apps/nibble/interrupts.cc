#include "interrupts.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"

namespace nibble {

namespace {

// A handler reaches nothing but what is static. The pipe wakes whoever waits for stdin, whichever thread the signal
// went to.
std::atomic<bool> interrupt_raised = false;
std::array<int, 2> interrupt_pipe = {-1, -1};
static_assert(std::atomic<bool>::is_always_lock_free, "handlers may not lock");

void on_interrupt(int) {
  const int saved = errno;
  interrupt_raised = true;
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(interrupt_pipe[1], &byte, 1);  // full: it is readable already
  errno = saved;
}

}  // namespace

Interrupts::Interrupts() {
  if (pipe(interrupt_pipe.data()) != 0) throw_run_error("no pipe for signals: {}", std::strerror(errno));
  for (const int descriptor : interrupt_pipe) {  // macOS has no pipe2
    fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    fcntl(descriptor, F_SETFL, O_NONBLOCK);
  }
  interrupt_raised = false;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

Interrupts::~Interrupts() {
  std::signal(SIGINT, SIG_DFL);
  for (int& descriptor : interrupt_pipe) close(std::exchange(descriptor, -1));
}

const std::atomic<bool>& Interrupts::raised() const { return interrupt_raised; }

int Interrupts::descriptor() const { return interrupt_pipe[0]; }

void Interrupts::clear() {
  char bytes[64];
  while (read(interrupt_pipe[0], bytes, sizeof bytes) > 0) {}
  interrupt_raised = false;
}

}  // namespace nibble
