#include "checkpoint/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace nibble {

namespace {

// The last step would put the file in the place of a device or a link (such as /dev/stdout), and fail at a folder. What a
// link points to is written in its stead.
std::filesystem::path checked(std::filesystem::path path) {
  if (!path.has_filename()) throw_input_error("{}: the name of a file to write expected", path.string());
  std::error_code error;
  if (std::filesystem::is_symlink(path, error)) {
    const auto target = std::filesystem::canonical(path, error);
    if (error) throw_input_error("{}: is a link to what is not there: {}", path.string(), error.message());
    path = target;
  }
  struct stat info{};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    throw_input_error("{}: is {}; a file can be written only in the place of another one", path.string(),
                      S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe");
  return path;
}

// A renamed file is found after a power cut only once its folder is on the disk, too.
void sync_folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool failed = fd < 0 || (fsync(fd) != 0 && errno != EINVAL);  // EINVAL: this file system syncs no folders
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (failed)
    throw_run_error("{}: is written, but its name may not last: its folder cannot be written to the disk: {}",
                    path.string(), std::strerror(error));
}

void remove_empty(const std::vector<std::filesystem::path>& folders) {
  for (const auto& folder : folders) rmdir(folder.c_str());  // fails if there are files in it, or it is no folder
}

}  // namespace

OutputFile::OutputFile(std::filesystem::path path)
    : path_(checked(std::move(path))),
      temporary_(path_.string() + ".partial"),
      fd_(open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ >= 0) return;
  const int error = errno;
  constexpr auto message = "{}: cannot be created: {}";
  if (error == ENOSPC) throw_run_error(message, temporary_.string(), std::strerror(error));
  throw_input_error(message, temporary_.string(), std::strerror(error));
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
  sync_folder_of(path_);
}

MadeFolder::MadeFolder(const std::filesystem::path& folder) {
  std::error_code error;
  for (auto at = folder; !at.empty() && !std::filesystem::exists(at, error); at = at.parent_path()) made_.push_back(at);
  std::filesystem::create_directories(folder, error);
  if (!error) return;
  remove_empty(made_);
  throw_input_error("{}: cannot be created: {}", folder.string(), error.message());
}

MadeFolder::~MadeFolder() { remove_empty(made_); }

void check_disk_space(const std::filesystem::path& folder, uint64_t bytes) {
  std::filesystem::path there = std::filesystem::absolute(folder);
  std::error_code error;
  while (!std::filesystem::exists(there, error) && there.has_relative_path()) there = there.parent_path();
  const uint64_t available = std::filesystem::space(there, error).available;
  if (!error && bytes > available)
    throw_input_error(
        "{}: {} MB of weights do not fit on the disk, which has {} MB left; free some or name another one",
        folder.string(), (bytes + (1 << 20) - 1) >> 20, available >> 20);
}

void write_file(const std::filesystem::path& path, std::string_view contents) {
  OutputFile file(path);
  file.write(0, {reinterpret_cast<const uint8_t*>(contents.data()), contents.size()});
  file.commit();
}

}  // namespace nibble
