// A whole file: mapped read-only, for headers and other small things, and read in large pieces.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace nibble {

// What the system says of a file: of another file, or after any change of its bytes, it is another.
struct FileIdentity {
  uint64_t device, inode, size;
  int64_t mtime_ns, ctime_ns;  // of the last change of its bytes, and of anything; programs can set only the first
  bool operator==(const FileIdentity&) const = default;
};

class MappedFile {
 public:
  // Throws InputError, with the path and the system's reason, if the file cannot be opened or is not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // As it is now. Throws RunError if the system cannot tell.
  FileIdentity identity() const;

  // Reading without the mapping. `part` of bytes() is copied to `to`, where it begins read_offset(part) bytes behind a
  // multiple of kReadUnit in memory, as it does in the file; whole units around it are overwritten, so the room that it
  // needs is read_room(part.size()). Large parts that are not in the page cache are read past it. Several threads may
  // read at once. Throws RunError if the system cannot, or if the file has become shorter.
  static constexpr size_t kReadUnit = 4096;
  static constexpr size_t read_room(size_t size) { return (size + 2 * kReadUnit - 2) / kReadUnit * kReadUnit; }
  size_t read_offset(std::span<const uint8_t> part) const {
    return static_cast<size_t>(part.data() - data_) % kReadUnit;
  }
  void read(std::span<const uint8_t> part, uint8_t* to) const;

  // Whether bytes() of `part` are in memory, but for a twentieth; false if the system does not tell. release() says that the
  // mapping's pages will not be wanted soon.
  bool is_cached(std::span<const uint8_t> part) const;
  void release(std::span<const uint8_t> part) const;

  // Reading through the mapping, in huge pages where the file system has such: want_huge_pages() once, then populate() of
  // each part, which several threads may do at once. False: the system has no such call, or the file cannot be read.
  void want_huge_pages() const;
  bool populate(std::span<const uint8_t> part) const;
  size_t huge_bytes() const;  // that are mapped in huge pages now; 0 if the system does not tell

 private:
  double cached_share(std::span<const uint8_t> part) const;  // of some of its pages; 1 if the system does not tell

  std::filesystem::path path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool tells_cached_ = false;     // the system tells what the page cache has of a file only to those who may write it
  int fd_ = -1, direct_fd_ = -1;  // the second goes past the page cache; -1 if the file system has no such way
};

}  // namespace nibble
