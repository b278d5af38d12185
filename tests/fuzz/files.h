// The files of one folder in memory, and as one string of bytes: the form in which a fuzzer holds them. Each file begins
// with a line "@@ NAME", so that seeds of text files can be read and written by hand.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

using Files = std::map<std::string, std::string>;  // contents by name

// Any bytes are some files; what stands before the first "@@ " is the file "". A name of a file never names a folder.
Files split_files(std::span<const uint8_t> bytes);

std::string join_files(const Files& files);

// The contents under `name`, or nothing.
inline std::string_view file_or_empty(const Files& files, const std::string& name) {
  const auto it = files.find(name);
  return it == files.end() ? std::string_view() : it->second;
}

}  // namespace nibble
