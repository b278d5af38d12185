#include "base/read_file.h"

#include <system_error>

#include "base/error.h"
#include "base/mapped_file.h"

namespace nibble {

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {file.bytes().begin(), file.bytes().end()};
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  if (error) throw_input_error("{}: cannot be read: {}", path.string(), error.message());
  return exists;
}

}  // namespace nibble
