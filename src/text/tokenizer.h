// Text to token ids and back: byte-level byte-pair encoding, as the Hugging Face tokenizers library does it.
//
// Encoding: invalid UTF-8 becomes U+FFFD; added tokens are cut out; the rest is normalized, cut into words by the
// model's patterns, and each word's bytes are merged by rank. Decoding concatenates the tokens' bytes.
// A Tokenizer does not change once made: many threads may use it at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace nibble {

struct EncodeOptions {
  bool add_bos = false;        // begin with bos()
  bool parse_special = false;  // control tokens in the text become their ids; otherwise they are text like any other
};

class Tokenizer {
 public:
  // Reads a tokenizer.json. `config` is the tokenizer_config.json beside it, which names the bos and eos tokens, or
  // null. Throws InputError with the key at fault if the file is no byte-level BPE tokenizer or contradicts itself.
  static Tokenizer from_json(const nlohmann::json& tokenizer, const nlohmann::json& config);

  // Reads the metadata of a GGUF file, an object with its "tokenizer.ggml.…" keys: model ("gpt2"), pre, tokens, merges,
  // token_type, bos_token_id, eos_token_id, add_bos_token. Throws InputError with the key at fault.
  static Tokenizer from_gguf(const nlohmann::json& metadata);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // The ids of `text`. Throws InputError if options.add_bos is set and there is no bos token, or if the text is longer
  // than 1 GiB.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // The bytes of `ids`, those of control tokens included as their text. Not always valid UTF-8: see StreamDecoder.
  std::string decode(std::span<const int32_t> ids) const;

  // The bytes of one token. Empty for an id without a token: models pad their vocabulary beyond the tokenizer's, so
  // such ids can be sampled.
  std::string_view token_bytes(int32_t id) const;

  // Whether `id` is a control token, not meant to be shown.
  bool is_special(int32_t id) const;

  // One more than the largest id.
  int32_t vocab_size() const;

  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

  // Whether the model expects bos() at the beginning of every text.
  bool adds_bos() const;

  // The token whose bytes are `token`; an added token goes before a token of the vocabulary.
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
  std::string held_;
};

}  // namespace nibble
