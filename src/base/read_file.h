// A whole file as bytes in memory: for texts and templates. Weights are mapped instead (base/mapped_file.h).
#pragma once

#include <filesystem>
#include <string>

namespace nibble {

// Throws InputError with the path and the system's reason if it cannot be read.
std::string read_file(const std::filesystem::path& path);

// Whether there is something of that name. Throws InputError if the system cannot tell (a folder that may not be entered, a
// link to itself).
bool is_there(const std::filesystem::path& path);

}  // namespace nibble
