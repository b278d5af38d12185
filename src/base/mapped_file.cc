#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

void MappedFile::drop(std::span<const uint8_t> part) const {
  // A page that is touched brings neighbours with it (Linux maps 64 KB around it, or the file system's larger piece, but
  // none beyond one page table's 2 MB): they go, too. Else each of the 20,000 tensors of a mixture of experts would leave
  // some behind. What is still wanted comes back.
  constexpr size_t kNeighbours = size_t{2} << 20;
  if (part.empty()) return;
  const auto begin = reinterpret_cast<uintptr_t>(data_);
  const uintptr_t first = reinterpret_cast<uintptr_t>(part.data()) / kNeighbours * kNeighbours;
  const uintptr_t last =
      (reinterpret_cast<uintptr_t>(part.data()) + part.size() + kNeighbours - 1) / kNeighbours * kNeighbours;
  const size_t offset = first > begin ? first - begin : 0;  // a mapping begins with a page
  madvise(const_cast<uint8_t*>(data_) + offset, std::min(size_, last - begin) - offset, MADV_DONTNEED);
}

}  // namespace nibble
