// What a tokenizer looks up, made of its spec: tokens by id and by text, the models, and the matchers of added tokens.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"
#include "text/unigram.h"
#include "text/utf8.h"

namespace nibble {

// Where a text may be cut before a space symbol without changing what becomes of it: where no token has that symbol
// after the byte before. Words are short then, and they repeat.
class SpaceCuts {
 public:
  SpaceCuts() = default;  // cuts nowhere
  explicit SpaceCuts(std::span<const std::pair<std::string, int32_t>> vocabulary) : cuts_(true) {
    for (const auto& [text, id] : vocabulary)
      for (size_t at = 0; (at = text.find(kSpaceSymbol, at + 1)) != std::string::npos;)
        joins_[static_cast<uint8_t>(text[at - 1])] = true;
  }

  // The first cut after `begin`, or the end of the text.
  size_t next(std::string_view text, size_t begin) const {
    if (!cuts_) return text.size();
    for (size_t at = begin; (at = text.find(kSpaceSymbol, at + 1)) != std::string_view::npos;)
      if (!joins_[static_cast<uint8_t>(text[at - 1])]) return at;
    return text.size();
  }

 private:
  bool cuts_ = false;
  bool joins_[256] = {};
};

struct Tokenizer::State {
  TokenizerSpec spec;  // kept for the writer
  std::string pool;    // the bytes of all tokens
  struct Token {
    size_t offset = 0, size = 0;
    bool exists = false, is_special = false;
    size_t first_offset = 0, first_size = 0;  // the bytes at the beginning of a text
  };
  std::vector<Token> tokens;                            // by id
  std::unordered_map<std::string_view, int32_t> texts;  // by the text that files have; views into `spec`
  std::unordered_map<std::string_view, int32_t> words;  // by what a word is when it is looked up: bytes, or the text
  std::unordered_map<std::string_view, int32_t> added;  // by content
  AddedTokenMatcher raw, raw_without_special, normalized, normalized_without_special;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  Unigram unigram;
  SpaceCuts cuts;

  std::string_view bytes_of(int32_t id) const {
    return std::string_view(pool).substr(tokens[id].offset, tokens[id].size);
  }
  void set_token(int32_t id, std::string_view text, bool is_added, bool is_special);
  void check_id(std::string_view text, int32_t id) const;
  void read_vocabulary();
  int32_t id_of_merged(const std::string& text, size_t rank) const;
  std::vector<BpeMerge> read_merges() const;
  std::optional<int32_t> find_unknown() const;
  void make_bpe();
  void make_unigram();
  // What stands in the text for an added token: its content, normalized if the text is by then.
  std::string_view matched_content(const AddedToken& token, std::deque<std::string>& storage) const;
  void read_added_tokens();
  explicit State(TokenizerSpec new_spec);

  struct Call;
  void encode_text(std::string_view text, bool is_first, Call& call) const;
  void encode_word(std::string_view word, Call& call) const;
};

}  // namespace nibble
