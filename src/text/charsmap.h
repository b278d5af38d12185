// SentencePiece's precompiled map of characters: a double-array trie from sequences of bytes to what replaces them.
//
// The blob is uint32 trie_bytes, the trie's units, then the replacements, each ended by a zero byte. A unit has a label
// in bits 0-7 and 31, whether a value hangs on it in bit 8, and the offset of its children in bits 9-30.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

class Charsmap {
 public:
  struct Match {
    std::string_view replacement;
    size_t num_bytes = 0;  // of the text; 0: nothing begins here
  };

  Charsmap() = default;  // replaces nothing
  // Throws InputError with `where` if the sizes in the blob do not fit it.
  Charsmap(std::string_view blob, std::string_view where);

  Match longest(std::string_view text) const { return find(text, false); }
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool first) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

// Nothing if `text` is no base64.
std::optional<std::string> bytes_of_base64(std::string_view text);
std::string base64_of_bytes(std::string_view bytes);

}  // namespace nibble
