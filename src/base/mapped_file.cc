#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"

namespace nibble {

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // else a FIFO waits for its writer
  if (fd < 0) throw_input_error("{}: cannot be opened: {}", path.string(), std::strerror(errno));
  struct stat info{};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    throw_input_error("{}: is not a regular file", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {  // mmap refuses an empty range
    void* address = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      const int error = errno;
      close(fd);
      throw_run_error("{}: {} bytes cannot be mapped: {}", path.string(), size_, std::strerror(error));
    }
    data_ = static_cast<const uint8_t*>(address);
  }
  fd_ = fd;
#if defined(__linux__)
  tells_cached_ = info.st_uid == geteuid() || access(path.c_str(), W_OK) == 0;
  direct_fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
#endif
}

MappedFile::~MappedFile() {
  close(fd_);
  if (direct_fd_ >= 0) close(direct_fd_);
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

FileIdentity MappedFile::identity() const {
  struct stat info{};
  if (fstat(fd_, &info) != 0) throw_run_error("{}: cannot be looked at: {}", path_.string(), std::strerror(errno));
  const auto nanoseconds = [](const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; };
#if defined(__APPLE__)
  const timespec &mtime = info.st_mtimespec, &ctime = info.st_ctimespec;
#else
  const timespec &mtime = info.st_mtim, &ctime = info.st_ctim;
#endif
  return {.device = static_cast<uint64_t>(info.st_dev),
          .inode = static_cast<uint64_t>(info.st_ino),
          .size = static_cast<uint64_t>(info.st_size),
          .mtime_ns = nanoseconds(mtime),
          .ctime_ns = nanoseconds(ctime)};
}

double MappedFile::cached_share(std::span<const uint8_t> part) const {
  size_t asked = 0, cached = 0;
#if defined(__linux__)
  // The page cache grows and shrinks by more than a page, and asking takes as long as copying two.
  constexpr size_t kLeastStep = 32 * kReadUnit, kMostAsked = 64;
  const size_t step = std::max(kLeastStep, part.size() / kMostAsked / kReadUnit * kReadUnit);
  const auto begin = static_cast<size_t>(part.data() - data_), end = begin + part.size();
  for (size_t at = begin / kReadUnit * kReadUnit; tells_cached_ && at < end; at += step) {
    unsigned char page;
    if (mincore(const_cast<uint8_t*>(data_) + at, 1, &page) != 0) return 1;
    asked++;
    cached += page & 1;
  }
#endif
  return asked == 0 ? 1 : static_cast<double>(cached) / static_cast<double>(asked);
}

bool MappedFile::is_cached(std::span<const uint8_t> part) const { return tells_cached_ && cached_share(part) > 0.95; }

void MappedFile::release(std::span<const uint8_t> part) const {
  const auto begin = static_cast<size_t>(part.data() - data_);
  const size_t first = begin / kReadUnit * kReadUnit;
  madvise(const_cast<uint8_t*>(data_) + first, begin + part.size() - first, MADV_DONTNEED);  // at worst they stay
}

void MappedFile::read(std::span<const uint8_t> part, uint8_t* to) const {
  constexpr size_t kLarge = 64 * 1024;  // below, the page cache's reading ahead is worth more
  const auto begin = static_cast<size_t>(part.data() - data_);
  const bool is_direct = direct_fd_ >= 0 && part.size() >= kLarge && cached_share(part) < 0.5;
  const size_t before = is_direct ? read_offset(part) : 0;
  const size_t wanted = before + part.size();
  const size_t asked = is_direct ? (wanted + kReadUnit - 1) / kReadUnit * kReadUnit : wanted;
  for (size_t done = 0; done < wanted;) {
    const ssize_t count = pread(is_direct ? direct_fd_ : fd_, to - before + done, asked - done,
                                static_cast<off_t>(begin - before + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_run_error("{}: cannot be read at byte {}: {}", path_.string(), begin, std::strerror(errno));
    const size_t end = done + static_cast<size_t>(count);
    // Direct reads go on at a whole unit: at the end of the file they have the same bytes again.
    const size_t next = is_direct && end < wanted ? end / kReadUnit * kReadUnit : end;
    if (next == done)
      throw_run_error("{}: ends at byte {}, but had {} bytes when it was opened; it has been changed meanwhile",
                      path_.string(), begin - before + end, size_);
    done = next;
  }
}

void MappedFile::want_huge_pages() const {
#ifdef MADV_HUGEPAGE
  madvise(const_cast<uint8_t*>(data_), size_, MADV_HUGEPAGE);  // advice: populate and huge_bytes tell what came of it
#endif
}

bool MappedFile::populate(std::span<const uint8_t> part) const {
#ifdef MADV_POPULATE_READ
  const auto begin = static_cast<size_t>(part.data() - data_);
  const size_t first = begin / kReadUnit * kReadUnit;
  return part.empty() ||
         madvise(const_cast<uint8_t*>(data_) + first, begin + part.size() - first, MADV_POPULATE_READ) == 0;
#else
  return part.empty();
#endif
}

size_t MappedFile::huge_bytes() const {
  // A mapping begins with its range, "7f7269000000-7f72a9000000 r--p …", in hexadecimal; lines "Name: value kB" follow.
  std::ifstream maps("/proc/self/smaps");
  const std::string range = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(data_)), value = "FilePmdMapped:";
  bool is_this = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.starts_with(range)) is_this = true;
    if (is_this && line.starts_with(value)) return std::stoull(line.substr(value.size())) * 1024;
  }
  return 0;
}

}  // namespace nibble
