// One safetensors file in memory. The format: 8 bytes, the length of the header (little-endian); the header, a JSON
// object name → {"dtype", "shape", "data_offsets": [begin, end)} with an optional "__metadata__"; the data, in which
// the tensors lie without overlaps, holes or leftovers.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

// The tensors in the order of their data; their bytes point into `bytes`. Never reads outside `bytes`, whatever they
// hold; throws InputError, whose message starts with `file`, for anything that breaks the format.
std::vector<Tensor> parse_safetensors(std::span<const uint8_t> bytes, std::string_view file);

}  // namespace nibble
