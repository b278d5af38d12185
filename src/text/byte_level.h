// The byte-level alphabet of GPT-2: each of the 256 bytes stands in vocabulary files as one printable character.
//
// The printable bytes of Latin-1 stand for themselves; the other 68 take U+0100, U+0101, … in order, so that a space is
// "Ġ" (U+0120) and a line feed "Ċ" (U+010A).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

char32_t byte_to_character(uint8_t byte);

// The bytes that a token of a vocabulary file stands for; nothing if a character is not of the alphabet.
std::optional<std::string> bytes_of_byte_level(std::string_view token);

// The other way: `bytes` as a vocabulary file writes them.
std::string byte_level_of_bytes(std::string_view bytes);

// The byte that a token such as "<0x0A>" stands for, in vocabularies that are not byte-level.
std::optional<uint8_t> byte_of_token(std::string_view token);

}  // namespace nibble
