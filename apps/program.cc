#include "program.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <new>
#include <string_view>

#include "base/error.h"
#include "base/log.h"

namespace nibble {

namespace {

// The next file that is opened would take the place of a closed stdin, stdout or stderr: be read as the prompt, or
// written into. What stands there now fails as the closed one did, but for stderr, which nobody wants to read.
void fill_closed_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(fd, F_GETFD) == -1) open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY);
}

// Of warnings and of errors: it does not throw if stderr cannot be written, as fmt::print does.
void print_message(std::string_view before, std::string_view message) {
  const std::string line = fmt::format("{}{}\n", before, message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

// Bytes of a mapped file that are gone: nothing can go on without them, and no exception leads out of here.
void on_lost_bytes(int number, siginfo_t* info, void*) {
  if (info->si_code == BUS_ADRALN) {  // a fault of ours: end as that does
    std::signal(number, SIG_DFL);
    return;
  }
  constexpr std::string_view kMessage =
      "bytes of a file are gone while it is read: it has become shorter, or its disk fails; try again when it is "
      "whole\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage.data(), kMessage.size());
  _exit(1);
}

}  // namespace

int run_program(CLI::App& app, int argc, char** argv) {
  fill_closed_streams();
  struct sigaction action = {};
  action.sa_sigaction = on_lost_bytes;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
  set_log_sink([](LogLevel level, std::string_view message) {
    print_message(level == LogLevel::warning ? "warning: " : "", message);
  });
  const std::string name = app.get_name() + ": ";
  try {
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      throw_run_error("the output cannot be written: the disk is full or the reader is gone");
    return 0;
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    app.exit(e);
    return 2;
  } catch (const InputError& e) {
    print_message(name, e.what());
    return 2;
  } catch (const std::bad_alloc&) {
    print_message(name, "out of memory");
    return 1;
  } catch (const std::exception& e) {
    print_message(name, e.what());
    return 1;
  }
}

std::string not_empty(const std::string& text) { return text.empty() ? "is empty; leave it out, or give a value" : ""; }

bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

std::function<void(int64_t, int64_t)> progress_bar(const char* what) {
  if (!stderr_is_terminal()) return {};
  using Clock = std::chrono::steady_clock;
  struct State {
    Clock::time_point start = Clock::now(), last_drawn;
  };
  return [what, state = std::make_shared<State>()](int64_t done, int64_t all) {
    const auto now = Clock::now();
    if (done < all && now - state->last_drawn < std::chrono::milliseconds(50)) return;
    state->last_drawn = now;
    const double seconds = std::chrono::duration<double>(now - state->start).count();
    const double share = all > 0 ? static_cast<double>(done) / static_cast<double>(all) : 1;
    const auto filled = static_cast<size_t>(share * 30);
    fmt::print(stderr, "\r{} [{}{}] {:3.0f} % {:.1f} GB/s", what, std::string(filled, '='),
               std::string(30 - filled, ' '), 100 * share, static_cast<double>(done) / std::max(seconds, 1e-9) / 1e9);
    if (done >= all) fmt::print(stderr, "\r\033[K");  // nothing stays of it
    std::fflush(stderr);
  };
}

void print_json(const nlohmann::ordered_json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.1f} KB", bytes / 1e3);
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace nibble
