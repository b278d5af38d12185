// What a tokenizer file says, whichever kind of file it was: the one thing that the readers make and that the tokenizer
// and the writer use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/added_tokens.h"
#include "text/pre_tokenizer.h"

namespace nibble {

struct TokenizerSpec {
  static constexpr int32_t kMaxVocabulary = 1 << 21;  // ids below it; published vocabularies stay under 300 000

  std::vector<std::pair<std::string, int32_t>> vocabulary;  // in the byte-level alphabet; ids may have holes
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added_tokens;                     // may name ids of the vocabulary again
  PreTokenizerSpec pre_tokenizer;
  std::optional<std::string> unknown_token;
  bool fuse_unknown = false;
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges make of it
  bool nfc = false;            // text is brought into Unicode's composed form first
  std::optional<int32_t> bos, eos;
  bool adds_bos = false;
};

// The readers; both throw InputError with the key and what was found there.
TokenizerSpec read_tokenizer_json(const nlohmann::json& tokenizer, const nlohmann::json& config);
TokenizerSpec read_tokenizer_gguf(const nlohmann::json& metadata);

// A value from a file as an error message shows it: its JSON, cut where it is long, whatever bytes are in it.
std::string shown(const nlohmann::json& value);

// "left right" as merges are written in GGUF and in older JSON files.
std::pair<std::string, std::string> split_merge(std::string_view merge, size_t rank);

}  // namespace nibble
