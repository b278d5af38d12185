// How fast the system gives files: the bound of whatever loads them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/mapped_file.h"

namespace nibble {

// A reading takes this much at most: whole files, or stretches of `kStretchBytes` spread over them evenly.
inline constexpr size_t kStretchBytes = size_t{64} << 20, kMostStretches = 32;

struct Stretch {
  const MappedFile* file;
  std::span<const uint8_t> bytes;
};
std::vector<Stretch> stretches_of(std::span<const std::shared_ptr<const MappedFile>> files);

// GB/s of reads of 4 MB, kReaders at once, into memory that the process has not touched, from the disk or the page cache as
// MappedFile::read chooses; 0 if the files are empty. Throws as that does, and RunError if there is no memory.
double measure_file_gbps(std::span<const std::shared_ptr<const MappedFile>> files);

}  // namespace nibble
