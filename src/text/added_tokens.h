// Tokens that are found in the text before anything else cuts it: control tokens such as <|im_start|>, and words that
// were added to a vocabulary. They are matched leftmost first, the longest of those that begin at one place.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble {

struct AddedToken {
  int32_t id;
  std::string content;
  bool is_special = false;     // a control token: it is text unless the caller asks for special tokens
  bool is_normalized = false;  // matched in the normalized text, after the others were found in the raw text
  bool is_verbatim = false;    // is_normalized, and the content is in its normalized form already
  bool strip_left = false;     // takes the white space before it, too
  bool strip_right = false;    // and the white space after it
  bool single_word = false;    // only where no word character touches it
};

// A part of a text: an added token, or the text between two of them.
struct TextPart {
  std::string_view text;
  int32_t id;  // -1: not an added token
};

class AddedTokenMatcher {
 public:
  static constexpr size_t kMaxContent = 4096;  // longest content: a search takes this many steps per byte at worst

  // Adds `content` (which may differ from token.content by normalization). Throws InputError if it is too long.
  void add(std::string_view content, const AddedToken& token);

  // Appends the parts of `text` to `parts`, in order; empty texts between tokens are left out.
  void split(std::string_view text, std::vector<TextPart>& parts) const;

  // The size of the longest content that `text` begins with, 0 if there is none.
  size_t longest_at(std::string_view text) const;

  bool empty() const { return tokens_.empty(); }

 private:
  int32_t step(int32_t node, uint8_t byte) const;

  // A tree of bytes: for each node the index into tokens_ of the content that ends there, -1 if none does.
  std::vector<int32_t> nodes_ = std::vector<int32_t>(1, -1);
  std::unordered_map<uint64_t, int32_t> children_;  // node << 8 | byte
  bool begins_[256] = {};                           // whether any content begins with this byte
  std::vector<AddedToken> tokens_;
};

}  // namespace nibble
