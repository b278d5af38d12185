// Anonymous memory for weights and caches: zeroed, on 64-byte lines, in huge pages where the system has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace nibble {

class Buffer {
 public:
  // Bytes that a fast kernel may read (not write) past the end of any buffer: a prefetch or a last full vector.
  static constexpr size_t kSlack = 64;

  Buffer() = default;
  // `size` zero bytes, in huge pages if the buffer is large; `huge_pages` false: in small ones, which NUMA nodes can
  // share. Throws RunError with the size if the system has no more memory.
  explicit Buffer(size_t size, bool huge_pages = true);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<uint8_t> bytes() const { return {data_, size_}; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Parts of large buffers, so that things smaller than a huge page lie in huge pages, too. May be used by several threads.
class HugePageArena {
 public:
  // `size` zero bytes and Buffer::kSlack, at a line's start. They live as long as their pointer, and the large buffer as long
  // as any of its parts. Throws as Buffer.
  std::shared_ptr<uint8_t> allocate(size_t size);

 private:
  std::mutex mutex_;
  std::shared_ptr<Buffer> buffer_;  // the last one
  size_t used_ = 0;
};

// Buffers that are filled once, read and given back, one after the other: they share pages, since to get fresh ones takes as
// long as to read a file into them. May be used by several threads.
class BufferPool {
 public:
  // At least `size` bytes of any value, given back with the pointer. When all are given back the pages are, too. Throws as
  // Buffer.
  std::shared_ptr<const Buffer> take(size_t size);

 private:
  struct Returned {
    std::mutex mutex;
    std::vector<Buffer> buffers;
    int num_taken = 0;
  };
  std::shared_ptr<Returned> returned_ = std::make_shared<Returned>();
};

// Bytes of memory that this process could still take without swapping, as the system estimates it; 0 if unknown.
size_t available_memory_bytes();

}  // namespace nibble
