// A model in several GGUF files, NAME-00001-of-00003.gguf and so on, as llama.cpp and gguf-py split them. Each is whole in
// itself and holds some of the tensors. The first has all metadata; what every part has are
//   split.no             its number, from 0
//   split.count          how many parts there are
//   split.tensors.count  how many tensors all parts have together
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "checkpoint/gguf.h"

namespace nibble {

struct GgufSplit {
  int64_t number = 0, count = 1;  // count 1: not split
  int64_t num_tensors = 0;        // of all parts
};

// What a file says of itself. Throws InputError, whose message starts with `file`, if it does not add up.
GgufSplit read_gguf_split(const GgufContents& contents, std::string_view file);

// Where the part of another number lies, from 0. Throws InputError if `path` is not named as the part that it is.
std::filesystem::path gguf_part_path(const std::filesystem::path& path, const GgufSplit& split, int64_t number);

// Adds the tensors of a later part. Throws InputError if it is not part `number` of the model that `first`, of file
// `first_file`, begins.
void add_gguf_part(GgufContents part, std::string_view file, int64_t number, const GgufSplit& first,
                   std::string_view first_file, GgufContents& all);

}  // namespace nibble
