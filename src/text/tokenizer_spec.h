// What a tokenizer file says, whichever kind of file it was: the one thing that the readers make and that the tokenizer
// and the writer use.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace nibble {

enum class TokenModel : uint8_t {
  bpe,         // merges by rank
  scored_bpe,  // any two neighbours that together are a token may merge, the one of the highest score first
  unigram,     // the tokens whose scores add up to the most
};

// How tokens become text again. Spaces inside tokens are undone first, then byte tokens become bytes.
struct DecoderSpec {
  bool byte_level = false;                                        // tokens are in the byte-level alphabet
  std::vector<std::pair<std::string, std::string>> replacements;  // in each token
  bool byte_fallback = false;                                     // <0x0A> is a byte
  std::string lost_in_first;                                      // what the first token loses wherever it has it
  int32_t strip_start = 0;                                        // so many spaces at the beginning of the text go
  static constexpr int32_t kAllSpaces = INT32_MAX;
};

struct TokenizerSpec {
  static constexpr int32_t kMaxVocabulary = 1 << 21;  // ids below it; published vocabularies stay under 300 000
  static constexpr double kTakesNoPart = -std::numeric_limits<double>::infinity();  // score of what no text becomes

  TokenModel model = TokenModel::bpe;
  bool byte_level = false;                                  // the vocabulary is in the byte-level alphabet
  std::vector<std::pair<std::string, int32_t>> vocabulary;  // ids may have holes
  std::vector<double> scores;                               // of each word of the vocabulary, unless the model is bpe
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added_tokens;                     // may name ids of the vocabulary again
  NormalizerSpec normalizer;
  PreTokenizerSpec pre_tokenizer;
  DecoderSpec decoder;
  std::optional<std::string> unknown_token;
  bool fuse_unknown = false;
  bool byte_fallback = false;           // characters without a token become <0x..>
  bool ignore_merges = false;           // a word that is a token is that token, whatever the merges make of it
  bool single_precision = false;        // unigram scores are floats
  bool normalizer_takes_bytes = false;  // the normalizer replaces what is no UTF-8, byte by byte

  std::optional<int32_t> bos, eos;
  std::vector<int32_t> prefix, suffix;  // the model expects them around every text
};

// The readers; all throw InputError with the key and what was found there.
TokenizerSpec read_tokenizer_json(const nlohmann::json& tokenizer, const nlohmann::json& config);
TokenizerSpec read_tokenizer_gguf(const nlohmann::json& metadata);
TokenizerSpec read_sentencepiece(std::string_view bytes, const nlohmann::json& config);

// Reads normalizer, pre_tokenizer, decoder and post_processor of a tokenizer.json.
void read_pipeline(const nlohmann::json& tokenizer, TokenizerSpec& spec);

// Sets bos, eos, prefix and suffix as tokenizer_config.json says, which may be null.
void read_roles(const nlohmann::json& config, TokenizerSpec& spec);

// What a SentencePiece model and a llama vocabulary of GGUF have in common: how their tokens become text.
DecoderSpec sentencepiece_decoder(const SpaceRules& spaces);

// A value from a file as an error message shows it: its JSON, cut where it is long, whatever bytes are in it.
std::string shown(const nlohmann::json& value);

// "left right" as merges are written in GGUF and in older JSON files.
std::pair<std::string, std::string> split_merge(std::string_view merge, size_t rank);

}  // namespace nibble
