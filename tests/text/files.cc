#include "text/files.h"

#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace nibble {

std::string read_text_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw_input_error("{}: cannot be opened", path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string read_xz_file(const std::filesystem::path& path) {
  const std::string command = "xz -dc '" + path.string() + "'";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw_run_error("{}: cannot be started", command);
  std::string text;
  std::array<char, 65536> buffer;
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) text.append(buffer.data(), n);
  if (pclose(pipe) != 0) throw_run_error("{}: failed", command);
  return text;
}

bool have_fixtures(const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder)) return true;
  std::printf("skipped: %s is not there\n", folder.c_str());
  return false;
}

}  // namespace nibble
