// Files that the tests of this folder read.
#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"

namespace nibble {

std::string read_text_file(const std::filesystem::path& path);

// What `xz` unpacks from the file.
std::string read_xz_file(const std::filesystem::path& path);

inline nlohmann::json read_json_file(const std::filesystem::path& path) { return parse_json(read_text_file(path)); }

// Whether the folder of fixtures is there. If not, says on stdout that the test had nothing to walk.
bool have_fixtures(const std::filesystem::path& folder);

}  // namespace nibble
