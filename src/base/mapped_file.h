// A whole file, mapped read-only. Pages come in when they are touched and may be dropped again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace nibble {

class MappedFile {
 public:
  // Throws InputError, with the path and the system's reason, if the file cannot be opened or is not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Tells the system that `part` of bytes() is not needed again soon, so that a loaded tensor does not stay twice in
  // memory. Its contents stay readable.
  void drop(std::span<const uint8_t> part) const;

 private:
  std::filesystem::path path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nibble
