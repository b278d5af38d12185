// One GGUF file in memory, version 2 or 3. The format, little-endian throughout: "GGUF", u32 version, u64 number of
// tensors, u64 number of metadata entries; the entries (key, type, value); for each tensor its name, dimensions
// (innermost first), type and offset; then, aligned, the data to which the offsets refer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "checkpoint/checkpoint.h"

namespace nibble {

// Types of metadata values, by their numbers in the file.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

inline constexpr uint32_t kGgufVersion = 3;
inline constexpr uint32_t kGgufMaxDimensions = 4;      // ggml's own limit
inline constexpr uint32_t kGgufDefaultAlignment = 32;  // unless the key below says otherwise
inline constexpr std::string_view kGgufAlignmentKey = "general.alignment";

struct GgufContents {
  nlohmann::json metadata;  // flat: {"general.architecture": "llama", …}; strings keep bytes that are not UTF-8
  TensorMap tensors;        // their bytes point into the bytes that were parsed
};

// Never reads outside `bytes`, whatever they hold, and takes no more memory than a small multiple of their number;
// throws InputError, whose message starts with `file`, for anything that breaks the format or is not read.
GgufContents parse_gguf(std::span<const uint8_t> bytes, std::string_view file);

// ggml's number for a type; none for those that GGUF does not have (F8, unsigned integers, booleans).
std::optional<uint32_t> ggml_type(DType dtype);

}  // namespace nibble
