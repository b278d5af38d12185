#include "text/byte_level.h"

#include <array>
#include <charconv>
#include <system_error>

#include "text/utf8.h"

namespace nibble {

namespace {

constexpr int kAlphabetEnd = 0x144;  // 256 + 68, one past the last character of the alphabet

struct Alphabet {
  std::array<char32_t, 256> characters;
  std::array<int16_t, kAlphabetEnd> bytes;  // -1 where a character is not of the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet{};
  for (auto& byte : alphabet.bytes) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; byte++) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet.characters[byte] = printable ? byte : next++;
    alphabet.bytes[alphabet.characters[byte]] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

char32_t byte_to_character(uint8_t byte) { return kAlphabet.characters[byte]; }

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const Utf8Step step = read_utf8(token, at);
    if (step.state != Utf8State::valid || step.code_point >= kAlphabetEnd || kAlphabet.bytes[step.code_point] < 0)
      return std::nullopt;
    bytes += static_cast<char>(kAlphabet.bytes[step.code_point]);
    at += step.num_bytes;
  }
  return bytes;
}

std::string byte_level_of_bytes(std::string_view bytes) {
  std::string token;
  for (const char byte : bytes) append_utf8(token, byte_to_character(static_cast<uint8_t>(byte)));
  return token;
}

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  uint8_t byte;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return byte;
}

}  // namespace nibble
