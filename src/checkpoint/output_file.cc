#include "checkpoint/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace nibble {

OutputFile::OutputFile(std::filesystem::path path)
    : path_(std::move(path)),
      temporary_(path_.string() + ".partial"),
      fd_(open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ >= 0) return;
  const int error = errno;
  const auto message = fmt::format("{}: cannot be created: {}", temporary_.string(), std::strerror(error));
  if (error == ENOSPC) throw RunError(message);
  throw InputError(message);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_) unlink(temporary_.c_str());
}

void OutputFile::write(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      throw_run_error("{}: {} bytes cannot be written at byte {}: {}", path_.string(), bytes.size(), offset,
                      std::strerror(errno));
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void OutputFile::close() {
  if (fd_ < 0) return;
  // Some file systems report a full disk only here.
  const bool failed = fsync(fd_) != 0;
  const int sync_error = errno;
  const bool close_failed = ::close(std::exchange(fd_, -1)) != 0;
  if (failed || close_failed)
    throw_run_error("{}: cannot be written to the disk: {}", path_.string(),
                    std::strerror(failed ? sync_error : errno));
}

void OutputFile::commit() {
  close();
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    throw_run_error("{}: cannot be renamed to {}: {}", temporary_.string(), path_.string(), std::strerror(errno));
  committed_ = true;
}

void check_disk_space(const std::filesystem::path& folder, uint64_t bytes) {
  std::filesystem::path there = std::filesystem::absolute(folder);
  std::error_code error;
  while (!std::filesystem::exists(there, error) && there.has_relative_path()) there = there.parent_path();
  const uint64_t available = std::filesystem::space(there, error).available;
  if (!error && bytes > available)
    throw_input_error(
        "{}: {} MB of weights do not fit on the disk, which has {} MB left; free some or name another one",
        folder.string(), bytes >> 20, available >> 20);
}

void write_file(const std::filesystem::path& path, std::string_view contents) {
  OutputFile file(path);
  file.write(0, {reinterpret_cast<const uint8_t*>(contents.data()), contents.size()});
  file.commit();
}

}  // namespace nibble
