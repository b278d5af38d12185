// Text to token ids and back, as the Hugging Face tokenizers library and SentencePiece do it (docs/tokenizers.md).
//
// Encoding: invalid UTF-8 becomes U+FFFD; added tokens are cut out; the rest is normalized, cut into words, and each
// word becomes tokens by merging pairs or by the best sum of scores. Decoding concatenates the tokens' bytes, without
// the space that encoding put before the text.
// A Tokenizer does not change once made: many threads may use it at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble {

struct EncodeOptions {
  bool add_bos = false;        // begin with what the model expects before a text, or else with bos()
  bool add_eos = false;        // end with what the model expects after a text, or else with eos()
  bool parse_special = false;  // control tokens in the text become their ids; otherwise they are text like any other
};

// Where a text being decoded is: what the next token may still lose.
struct DecodePosition {
  bool at_start = true;      // no token has come
  int32_t num_stripped = 0;  // spaces taken from the beginning; -1: the beginning is over
};

class Tokenizer {
 public:
  // Reads a tokenizer.json. `config` is the tokenizer_config.json beside it, which names the bos and eos tokens, or
  // null. Throws InputError with the key at fault if the file has what is not supported, or contradicts itself.
  static Tokenizer from_json(const nlohmann::json& tokenizer, const nlohmann::json& config);

  // Reads the metadata of a GGUF file, an object with its "tokenizer.ggml.…" keys. Throws InputError with the key at
  // fault.
  static Tokenizer from_gguf(const nlohmann::json& metadata);

  // Reads the bytes of a SentencePiece model (tokenizer.model); `config` as above. Throws InputError with the place.
  static Tokenizer from_sentencepiece(std::string_view bytes, const nlohmann::json& config);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // The ids of `text`. Throws InputError if options ask for a bos or eos token and there is none, or if the text is
  // longer than 1 GiB.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // The bytes of `ids`, those of control tokens included as their text. Not always valid UTF-8: see StreamDecoder.
  std::string decode(std::span<const int32_t> ids) const;

  // Appends to `bytes` what `id` adds to a text that is decoded token by token.
  void append_decoded(int32_t id, DecodePosition& position, std::string& bytes) const;

  // The bytes of one token in the middle of a text. Empty for an id without a token: models pad their vocabulary beyond the tokenizer's, so
  // such ids can be sampled.
  std::string_view token_bytes(int32_t id) const;

  // Whether `id` is a control token, not meant to be shown.
  bool is_special(int32_t id) const;

  // One more than the largest id.
  int32_t vocab_size() const;

  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

  // Whether the model expects tokens at the beginning and at the end of every text.
  bool adds_bos() const;
  bool adds_eos() const;

  // The token whose text is `token`, spaces as the vocabulary writes them; an added token goes before others.
  std::optional<int32_t> find(std::string_view token) const;

  // A tokenizer.json and a tokenizer_config.json equal in meaning to this tokenizer, whatever it was read from.
  nlohmann::json to_tokenizer_json() const;
  nlohmann::json to_tokenizer_config() const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Turns ids into text as they come. What it returns is always whole, valid UTF-8: together the pieces are the decoded
// bytes with invalid sequences replaced by U+FFFD.
class StreamDecoder {
 public:
  // `tokenizer` must outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // The text that `id` completes; bytes of an unfinished character wait for the next id.
  std::string push(int32_t id);

  // What is still held back, as U+FFFD. The decoder is then as new.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  DecodePosition position_;
  std::string held_;
};

}  // namespace nibble
