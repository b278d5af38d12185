#include "base/memory.h"

#include <sys/mman.h>

#include <algorithm>
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

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }
size_t mapped_bytes(size_t size) { return round_up(size + Buffer::kSlack, kHugePage); }

// At a huge page's start: a system may put a mapping anywhere.
void* map_huge_pages(size_t bytes) {
  const auto map = [](size_t size) {
    return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  };
  void* address = map(bytes);
  const auto at = [](void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
  if (address == MAP_FAILED || at(address) % kHugePage == 0) return address;
  munmap(address, bytes);
  address = map(bytes + kHugePage);
  if (address == MAP_FAILED) return address;
  const size_t before = round_up(at(address), kHugePage) - at(address);
  auto* const first = static_cast<uint8_t*>(address) + before;
  if (before > 0) munmap(address, before);
  if (before < kHugePage) munmap(first + bytes, kHugePage - before);
  return first;
}

// What an arena takes at once: of the last one some pages stay empty.
constexpr size_t kArenaBytes = size_t{64} << 20;

}  // namespace

Buffer::Buffer(size_t size, bool huge_pages) : size_(size) {
  if (!is_mapped(size)) {
    const size_t bytes = round_up(size + kSlack, 64);
    data_ = static_cast<uint8_t*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw_run_error("out of memory: {} bytes were asked for", bytes);
    std::memset(data_, 0, bytes);
    return;
  }
  void* address = map_huge_pages(mapped_bytes(size));
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

std::shared_ptr<uint8_t> HugePageArena::allocate(size_t size) {
  if (size > kArenaBytes / 2) {
    auto own = std::make_shared<Buffer>(size);
    return {own, own->data()};
  }
  const size_t bytes = round_up(size + Buffer::kSlack, 64);
  const std::lock_guard lock(mutex_);
  if (buffer_ == nullptr || buffer_->size() - used_ < bytes) {
    buffer_ = std::make_shared<Buffer>(kArenaBytes - Buffer::kSlack);
    used_ = 0;
  }
  uint8_t* const part = buffer_->data() + used_;
  used_ += bytes;
  return {buffer_, part};
}

std::shared_ptr<const Buffer> BufferPool::take(size_t size) {
  if (!is_mapped(size)) return std::make_shared<const Buffer>(size);
  const auto give_back = [returned = returned_](Buffer* buffer) {
    const std::unique_ptr<Buffer> owned(buffer);
    std::vector<Buffer> unused;  // goes after the lock
    const std::lock_guard lock(returned->mutex);
    returned->buffers.push_back(std::move(*owned));
    if (--returned->num_taken == 0) unused.swap(returned->buffers);
  };
  auto buffer = std::make_unique<Buffer>();
  Buffer too_small;
  {
    const std::lock_guard lock(returned_->mutex);
    std::vector<Buffer>& all = returned_->buffers;
    std::ranges::sort(all, {}, &Buffer::size);
    const auto fitting = std::ranges::find_if(all, [&](const Buffer& b) { return b.size() >= size; });
    if (fitting != all.end()) {
      *buffer = std::move(*fitting);
      all.erase(fitting);
    } else if (!all.empty()) {
      too_small = std::move(all.back());
      all.pop_back();
    }
    returned_->num_taken++;
  }
  // From here on the pointer gives back what it has, even if there is no memory.
  std::shared_ptr<Buffer> taken(buffer.release(), give_back);
  too_small = Buffer();
  if (taken->size() < size) *taken = Buffer(size);
  return taken;
}

size_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("MemAvailable:")) return std::stoull(line.substr(13)) * 1024;
  return 0;
}

}  // namespace nibble
