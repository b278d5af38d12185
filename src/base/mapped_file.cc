#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

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
  close(fd);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::drop(std::span<const uint8_t> part) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  // Whole pages only: what lies beside `part` may still be wanted.
  const size_t before = (page - reinterpret_cast<uintptr_t>(part.data()) % page) % page;
  if (part.size() < before + page) return;
  const size_t size = (part.size() - before) / page * page;
  madvise(const_cast<uint8_t*>(part.data()) + before, size, MADV_DONTNEED);
}

}  // namespace nibble
