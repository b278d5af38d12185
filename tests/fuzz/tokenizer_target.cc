#include "checkpoint/json_file.h"
#include "fuzz/targets.h"
#include "text/tokenizer.h"

namespace nibble {

namespace {

Tokenizer read_tokenizer(const Files& files) {
  const auto read = [&](const std::string& name) {
    const auto text = file_or_empty(files, name);
    return text.empty() ? nlohmann::json() : parse_json_object(text, name, RepeatedKeys::last_wins);
  };
  if (files.contains("metadata.json")) return Tokenizer::from_gguf(read("metadata.json"));
  return Tokenizer::from_json(read("tokenizer.json"), read("tokenizer_config.json"));
}

void encode_and_decode(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.encode(text, {.parse_special = parse_special});
    for (const int32_t id : ids) expect(id >= 0 && id < tokenizer.vocab_size(), "ids inside the vocabulary");
    tokenizer.decode(ids);
    StreamDecoder decoder(tokenizer);
    for (const int32_t id : ids) decoder.push(id);
    decoder.finish();
  }
}

}  // namespace

void fuzz_tokenizer(Bytes bytes) {
  const Files files = split_files(bytes);
  input_error_of("", [&] {
    const Tokenizer tokenizer = read_tokenizer(files);
    encode_and_decode(tokenizer, file_or_empty(files, "text"));
    encode_and_decode(tokenizer, "Hello <|im_start|> wörld\xF0\x9F\x98\x80\xFF 12345  \n\ttabs ");
    tokenizer.decode(std::vector<int32_t>{-1, 0, 1, tokenizer.vocab_size(), INT32_MAX});
    for (const auto id : {tokenizer.bos(), tokenizer.eos()})
      if (id) tokenizer.token_bytes(*id);
    Tokenizer::from_json(tokenizer.to_tokenizer_json(), tokenizer.to_tokenizer_config());
  });
}

}  // namespace nibble
