// Where each number and text of a GGUF header stands, found by a second, simple-minded walk that believes every length:
// for tests that change one of them. Not a reader; see checkpoint/gguf.h for that.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace nibble {

struct GgufField {
  std::string_view what;  // "length of a key", "tensor offset", …
  size_t offset, size;    // inside the file
};

struct GgufFields {
  std::vector<GgufField> fields;
  size_t data;  // where the header ends; the file's size at most
};

// The fields up to where the file ends or makes no sense; long arrays by their first few elements.
GgufFields find_gguf_fields(std::string_view bytes);

}  // namespace nibble
