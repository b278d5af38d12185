#include "base/read_file.h"

#include "base/mapped_file.h"

namespace nibble {

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {file.bytes().begin(), file.bytes().end()};
}

}  // namespace nibble
