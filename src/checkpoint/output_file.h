// A file that is there in full or not at all, whatever happens to the machine meanwhile: written under a temporary name,
// renamed once it is on the disk; then its folder is written to the disk, too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace nibble {

class OutputFile {
 public:
  // Opens "{path}.partial" for writing, replacing what an interrupted program left there; where `path` is a link, beside
  // the file that it points to. Throws InputError if it cannot be created, or if `path` is something that is no file, such
  // as a folder, a device or a link to nowhere.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();  // without commit(): removes the temporary file
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Bytes that are never written, below others that are, read as 0. These throw RunError with the path and the system's
  // reason, such as a full disk.
  void write(uint64_t offset, std::span<const uint8_t> bytes);
  void close();   // all that was written is on the disk; nothing can be written after it
  void commit();  // closes, and gives the file its name, in place of one that has it; both are on the disk

 private:
  const std::filesystem::path path_, temporary_;
  int fd_;
  bool committed_ = false;
};

// A folder, made with those above it if they are not there. What was made goes again if it is empty in the end. Throws
// InputError if it cannot be made.
class MadeFolder {
 public:
  explicit MadeFolder(const std::filesystem::path& folder);
  ~MadeFolder();
  MadeFolder(const MadeFolder&) = delete;
  MadeFolder& operator=(const MadeFolder&) = delete;

 private:
  std::vector<std::filesystem::path> made_;  // the innermost first
};

// Nothing is begun that does not fit: throws InputError with both sizes if the disk of `folder`, which need not be there
// yet, has less than `bytes` left.
void check_disk_space(const std::filesystem::path& folder, uint64_t bytes);

// The same in one call. Throws as OutputFile does.
void write_file(const std::filesystem::path& path, std::string_view contents);

}  // namespace nibble
