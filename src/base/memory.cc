#include "base/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"

namespace nibble {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Small buffers share the heap's pages; from one huge page on, a mapping of their own is worth its rounding.
bool is_mapped(size_t size) { return size >= kHugePage; }

size_t mapped_bytes(size_t size) { return (size + Buffer::kSlack + kHugePage - 1) / kHugePage * kHugePage; }

}  // namespace

Buffer::Buffer(size_t size, bool huge_pages) : size_(size) {
  if (!is_mapped(size)) {
    const size_t bytes = (size + kSlack + 63) / 64 * 64;
    data_ = static_cast<uint8_t*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw_run_error("out of memory: {} bytes were asked for", bytes);
    std::memset(data_, 0, bytes);
    return;
  }
  void* address = mmap(nullptr, mapped_bytes(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw_run_error("out of memory: {} bytes were asked for: {}", size, std::strerror(errno));
#ifdef MADV_HUGEPAGE
  // Advice: if it is not taken, it is only slower.
  madvise(address, mapped_bytes(size), huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
  data_ = static_cast<uint8_t*>(address);
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (is_mapped(size_)) {
    munmap(data_, mapped_bytes(size_));
  } else {
    std::free(data_);
  }
}

size_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("MemAvailable:")) return std::stoull(line.substr(13)) * 1024;
  return 0;
}

}  // namespace nibble
