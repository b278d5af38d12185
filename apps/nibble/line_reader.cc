#include "line_reader.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <poll.h>
#include <string_view>

#include "base/error.h"

namespace nibble {

namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr size_t kMaxMessage = size_t{64} << 20;  // bytes; no context holds so many

constexpr size_t kTerminalLine = 4095;  // what Linux holds of a line that is typed

}  // namespace

bool LineReader::wait() const {
  if (interrupts_ == nullptr) return true;
  pollfd both[2] = {{.fd = interrupts_->descriptor(), .events = POLLIN, .revents = 0},
                    {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}};
  while (poll(both, 2, -1) < 0 && errno == EINTR) {}
  return both[0].revents == 0;
}

LineReader::Got LineReader::read_line(const char* prompt, std::string& line) {
  if (prompts_) {
    std::fputs(prompt, stderr);
    std::fflush(stderr);
  }
  size_t end = buffer_.find('\n');
  while (end == std::string::npos && !at_end_) {
    if (!wait()) {
      buffer_.clear();
      return Got::interrupted;
    }
    char bytes[4096];
    const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const char* why = std::strerror(errno);
      if (isatty(STDIN_FILENO) == 0) throw_input_error("stdin cannot be read: {}", why);
      throw_run_error("the terminal cannot be read: {}", why);  // nobody could type anything better
    }
    if (count == 0) at_end_ = true;
    const size_t searched = buffer_.size();
    buffer_.append(bytes, static_cast<size_t>(count));
    if (buffer_.size() > kMaxMessage) throw_input_error("a line of more than {} bytes on stdin", kMaxMessage);
    end = buffer_.find('\n', searched);
  }
  if (end == std::string::npos && buffer_.empty()) return Got::end;
  line = buffer_.substr(0, end);
  buffer_.erase(0, end == std::string::npos ? end : end + 1);
  if (isatty(STDIN_FILENO) == 1 && line.size() >= kTerminalLine)
    throw_input_error(
        "a line of {} bytes, where the terminal cuts longer ones; cut it yourself with \\ at the ends, or pipe it in",
        line.size());
  if (line.ends_with('\r')) line.pop_back();
  return Got::message;
}

LineReader::Got LineReader::read(std::string& message) {
  std::string line;
  if (const Got got = read_line("> ", line); got != Got::message) return got;
  const bool is_quoted = line.starts_with(kQuotes);
  if (is_quoted) line.erase(0, kQuotes.size());
  message.clear();
  while (true) {
    const std::string_view end = is_quoted ? kQuotes : std::string_view("\\");
    const bool has_end = line.ends_with(end);
    if (has_end) line.resize(line.size() - end.size());
    message += line;
    if (has_end == is_quoted) return Got::message;
    message += '\n';
    if (message.size() > kMaxMessage) throw_input_error("a message of more than {} bytes on stdin", kMaxMessage);
    const Got got = read_line("… ", line);
    if (got == Got::interrupted) return got;
    if (got == Got::end) {  // of a pipe, or Ctrl-D: the message is what there is of it
      message.pop_back();
      return Got::message;
    }
  }
}

}  // namespace nibble
