#include "text/tokenizer.h"

#include <chrono>
#include <cmath>

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/files.h"
#include "text/utf8.h"

namespace nibble {
namespace {

using nlohmann::json;

const std::filesystem::path kData = std::filesystem::path(NIBBLE_TEST_DATA) / "text";

json small_file() { return read_json_file(kData / "tokenizer.json"); }

// The small tokenizer as a GGUF file would hold it.
json small_gguf(const std::string& pre) {
  const json file = small_file();
  json tokens = json::array(), types = json::array(), merges = json::array();
  const auto set = [&](int id, const std::string& text, int type) {
    while (static_cast<int>(tokens.size()) <= id) {
      tokens.push_back("");
      types.push_back(1);
    }
    tokens[id] = text;
    types[id] = type;
  };
  for (const auto& [text, id] : file["model"]["vocab"].items()) set(id, text, 1);
  for (const auto& token : file["added_tokens"]) set(token["id"], token["content"], token["special"] ? 3 : 4);
  for (const auto& merge : file["model"]["merges"])
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  const json start = Tokenizer::from_json(file, nullptr).find("<|start|>").value();
  const json end = Tokenizer::from_json(file, nullptr).find("<|end|>").value();
  return {{"tokenizer.ggml.model", "gpt2"},     {"tokenizer.ggml.pre", pre},
          {"tokenizer.ggml.tokens", tokens},    {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", merges},    {"tokenizer.ggml.bos_token_id", start},
          {"tokenizer.ggml.eos_token_id", end}, {"tokenizer.ggml.add_bos_token", true}};
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of_json(const json& file) {
  return error_of([&] { Tokenizer::from_json(file, nullptr); });
}

std::string error_of_gguf(const json& metadata) {
  return error_of([&] { Tokenizer::from_gguf(metadata); });
}

TEST(Tokenizer, EveryPreTokenizerGivesTheReferencesIds) {
  const auto goldens = read_json_file(kData / "tokenizer_golden.json");
  for (const auto& golden : goldens["cases"]) {
    SCOPED_TRACE(golden["name"]);
    json file = small_file();
    for (const auto& [key, value] : golden["patch"].items()) {
      if (value.is_object() && key == "model") {
        file[key].update(value);
      } else {
        file[key] = value;
      }
    }
    const auto tokenizer = Tokenizer::from_json(file, nullptr);
    const auto rewritten = Tokenizer::from_json(tokenizer.to_tokenizer_json(), nullptr);
    for (const auto& text : golden["texts"]) {
      const auto expected = text["ids"].get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer.encode(text["text"].get<std::string>(), {.parse_special = true}), expected) << text["text"];
      EXPECT_EQ(rewritten.encode(text["text"].get<std::string>(), {.parse_special = true}), expected) << text["text"];
    }
  }
}

TEST(Tokenizer, GgufGivesTheSameIdsAsJson) {
  const auto goldens = read_json_file(kData / "tokenizer_golden.json")["cases"];
  for (const auto& [pre, name] : {std::pair("gpt-2", "gpt2"), std::pair("llama-bpe", "llama3_ignore_merges"),
                                  std::pair("qwen2", "qwen2_nfc"), std::pair("smollm", "smollm")}) {
    SCOPED_TRACE(pre);
    const auto tokenizer = Tokenizer::from_gguf(small_gguf(pre));
    const auto config = tokenizer.to_tokenizer_config();
    const auto rewritten = Tokenizer::from_json(tokenizer.to_tokenizer_json(), config);
    EXPECT_EQ(rewritten.bos(), tokenizer.bos());
    EXPECT_EQ(rewritten.eos(), tokenizer.eos());
    EXPECT_TRUE(rewritten.adds_bos());
    for (const auto& golden : goldens) {
      if (golden["name"] != name) continue;
      for (const auto& entry : golden["texts"]) {
        const auto text = entry["text"].get<std::string>();
        const auto ids = tokenizer.encode(text, {.parse_special = true});
        EXPECT_EQ(rewritten.encode(text, {.parse_special = true}), ids);
        // A GGUF file does not say where a token stands alone, takes white space, or is normalized.
        const bool says_all =
            text.find("word") == text.npos && text.find("<pad>") == text.npos && text.find("caf") == text.npos;
        if (says_all) {
          EXPECT_EQ(ids, entry["ids"].get<std::vector<int32_t>>()) << text;
        }
      }
    }
  }
}

TEST(Tokenizer, SpecialTokensAreTextUnlessAskedFor) {
  const auto tokenizer = Tokenizer::from_gguf(small_gguf("gpt-2"));
  const std::string text = "<|start|>corn<|end|>";
  const auto plain = tokenizer.encode(text);
  for (const int32_t id : plain) EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.decode(plain), text);
  const auto parsed = tokenizer.encode(text, {.add_bos = true, .parse_special = true});
  EXPECT_EQ(parsed[0], tokenizer.bos());
  EXPECT_EQ(parsed[1], tokenizer.bos());
  EXPECT_EQ(parsed.back(), tokenizer.eos());
  EXPECT_TRUE(tokenizer.is_special(parsed[0]));
  EXPECT_EQ(tokenizer.decode(parsed), "<|start|>" + text);
}

TEST(Tokenizer, BosComesFromConfigOrTemplate) {
  json file = small_file();
  EXPECT_EQ(Tokenizer::from_json(file, nullptr).bos(), std::nullopt);
  EXPECT_NE(error_of([&] { Tokenizer::from_json(file, nullptr).encode("x", {.add_bos = true}); }).find("no beginning"),
            std::string::npos);
  const auto named = Tokenizer::from_json(file, {{"bos_token", "<|start|>"}, {"eos_token", {{"content", "<|end|>"}}}});
  EXPECT_EQ(named.bos(), named.find("<|start|>"));
  EXPECT_EQ(named.eos(), named.find("<|end|>"));
  EXPECT_FALSE(named.adds_bos());
  const int32_t end = *named.eos();
  file["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"special_tokens", {{"<|end|>", {{"id", "<|end|>"}, {"ids", {end}}, {"tokens", {"<|end|>"}}}}}}};
  const auto by_template = Tokenizer::from_json(file, nullptr);
  EXPECT_EQ(by_template.bos(), end);
  EXPECT_TRUE(by_template.adds_bos());
}

TEST(Tokenizer, AnyBytesComeBackWithInvalidOnesReplaced) {
  const auto tokenizer = Tokenizer::from_json(small_file(), nullptr);
  uint32_t random = 1;
  for (int trial = 0; trial < 300; trial++) {
    std::string text;
    for (int i = 0; i < trial; i++) {
      random = random * 1664525 + 1013904223;
      const int kind = random >> 29;
      text += static_cast<char>(kind < 3 ? 'a' + (random >> 20) % 26 : kind < 4 ? ' ' : random >> 16);
    }
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), replace_invalid_utf8(text));
  }
}

TEST(Tokenizer, InvalidUtf8IsReplacedByTheLongestStart) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("a\xFF"
                                 "b"),
            "a" + bad + "b");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98 x"), bad + " x");
  EXPECT_EQ(replace_invalid_utf8("\xE0\x80\x80"), bad + bad + bad);
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), bad + bad + bad);
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), bad + bad + bad + bad);
  EXPECT_EQ(replace_invalid_utf8("\xE6\x97"), bad);
}

TEST(Tokenizer, UnknownIdsHaveNoBytes) {
  const auto tokenizer = Tokenizer::from_json(small_file(), nullptr);
  EXPECT_EQ(tokenizer.token_bytes(-1), "");
  EXPECT_EQ(tokenizer.token_bytes(tokenizer.vocab_size()), "");
  EXPECT_FALSE(tokenizer.is_special(tokenizer.vocab_size()));
  EXPECT_EQ(tokenizer.find("no such token"), std::nullopt);
}

TEST(StreamDecoder, NeverEmitsHalfACharacter) {
  const auto tokenizer = Tokenizer::from_json(small_file(), nullptr);
  const std::string text = "日本 😀 ok";
  StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const int32_t id : tokenizer.encode(text)) {
    const std::string piece = stream.push(id);
    EXPECT_TRUE(is_utf8(piece));
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos);
    streamed += piece;
  }
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(stream.finish(), "");
  const auto first_byte = tokenizer.find("\xE6");
  ASSERT_TRUE(first_byte);
  EXPECT_EQ(stream.push(*first_byte), "");
  EXPECT_EQ(stream.push(*tokenizer.find("a")),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(stream.push(*first_byte), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Tokenizer, ALongWordIsNotQuadratic) {
  const auto tokenizer = Tokenizer::from_json(small_file(), nullptr);
  for (const std::string& text : {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n')}) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    EXPECT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(20));  // sanitizers are slow; n² is an hour
  }
}

TEST(TokenizerJson, WhatIsWrongIsNamed) {
  EXPECT_EQ(error_of_json(json::array()), "tokenizer.json is array, an object expected");
  EXPECT_EQ(error_of_json(json::object()), "model: vocab is null, an object expected");
  const auto with = [](const char* pointer, const json& value) {
    json file = small_file();
    file[json::json_pointer(pointer)] = value;
    return error_of_json(file);
  };
  EXPECT_EQ(with("/model/type", "WordLevel"), "model: type is \"WordLevel\", \"BPE\" or \"Unigram\" expected");
  EXPECT_NE(with("/model/type", "Unigram").find("vocab is object of"), std::string::npos);
  EXPECT_EQ(with("/model/vocab/x", -1), "model: vocab: id is -1, 0 to 2097151 expected");
  EXPECT_EQ(with("/model/vocab/x", 1e300), "model: vocab: id is 1e+300, 0 to 2097151 expected");
  EXPECT_NE(with("/model/vocab/qqq", 0).find("id 0 belongs to"), std::string::npos);
  EXPECT_EQ(with("/model/merges/0", "onlyone"), "merge 0: 'onlyone', two tokens with one space between them expected");
  EXPECT_EQ(with("/model/merges/0", ""), "merge 0: '', two tokens with one space between them expected");
  EXPECT_NE(with("/model/merges/0", json{"q", "q"}).find("'qq' is not in the vocabulary"), std::string::npos);
  EXPECT_NE(with("/model/byte_fallback", 1).find("byte_fallback is number"), std::string::npos);
  EXPECT_NE(with("/model/unk_token", "<unk>").find("'<unk>' is not in the vocabulary"), std::string::npos);
  EXPECT_NE(with("/decoder", {{"type", "WordPiece"}}).find("'WordPiece' is not supported"), std::string::npos);
  EXPECT_NE(with("/pre_tokenizer", nullptr).find("no ByteLevel"), std::string::npos);
  EXPECT_NE(with("/added_tokens/0/id", "seven").find("id is \"seven\""), std::string::npos);
  EXPECT_NE(with("/added_tokens/0/special", 3).find("special is number, true or false expected"), std::string::npos);
  EXPECT_NE(with("/added_tokens/0/content", std::string(5000, 'x')).find("content of 5000 bytes"), std::string::npos);
  const auto with_pattern = [&](const char* pattern) {
    return with("/pre_tokenizer", {{"type", "Sequence"},
                                   {"pretokenizers",
                                    {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}},
                                     {{"type", "ByteLevel"}, {"use_regex", false}}}}});
  };
  EXPECT_EQ(with_pattern("[a-z]"), "no error");
  EXPECT_EQ(with_pattern("[[:alpha:]]"), "no error");
  EXPECT_NE(with_pattern("(").find("pattern '('"), std::string::npos);
  EXPECT_NE(with_pattern("[^a-z&&[^b]]").find("a set inside a set"), std::string::npos);
  json deep = {{"type", "ByteLevel"}};
  for (int i = 0; i < 1000; i++) deep = {{"type", "Sequence"}, {"pretokenizers", json::array({deep})}};
  EXPECT_NE(with("/pre_tokenizer", deep).find("nested more than"), std::string::npos);
  EXPECT_NE(error_of([] { Tokenizer::from_json(small_file(), {{"bos_token", "<none>"}}); }).find("'<none>'"),
            std::string::npos);
}

TEST(TokenizerGguf, WhatIsWrongIsNamed) {
  const auto with = [](const char* key, const json& value) {
    json metadata = small_gguf("gpt-2");
    metadata[key] = value;
    return error_of_gguf(metadata);
  };
  EXPECT_EQ(error_of_gguf(nullptr), "GGUF metadata is null, an object expected");
  EXPECT_NE(with("tokenizer.ggml.model", "rwkv").find("'rwkv' is not supported; gpt2 (byte-level BPE), llama"),
            std::string::npos);
  EXPECT_NE(with("tokenizer.ggml.pre", "klingon").find("'klingon' is not known; default, gpt-2, "), std::string::npos);
  json scored = small_gguf("gpt-2");
  scored["tokenizer.ggml.model"] = "llama";
  scored["tokenizer.ggml.scores"] = {1.0, 2.0};
  EXPECT_NE(error_of_gguf(scored).find("scores: 2 entries"), std::string::npos);
  scored["tokenizer.ggml.scores"] = json(scored["tokenizer.ggml.tokens"].size(), std::nan(""));
  EXPECT_NE(error_of_gguf(scored).find("scores: token 0 has null"), std::string::npos);
  EXPECT_NE(with("tokenizer.ggml.tokens", 7).find("tokens is number, a list expected"), std::string::npos);
  EXPECT_NE(with("tokenizer.ggml.token_type", {1, 2}).find("2 entries"), std::string::npos);
  EXPECT_NE(with("tokenizer.ggml.bos_token_id", 100000).find("is 100000, but the vocabulary has"), std::string::npos);
  EXPECT_NE(with("tokenizer.ggml.merges", {"a"}).find("merge 0: 'a'"), std::string::npos);
  json twice = small_gguf("gpt-2");
  twice["tokenizer.ggml.tokens"][1] = twice["tokenizer.ggml.tokens"][0];
  EXPECT_NE(error_of_gguf(twice).find("has id 0 and id 1"), std::string::npos);
}

// Whatever stands in the place of a value, the result is a tokenizer or an InputError.
TEST(TokenizerJson, AnyWrongValueIsAnErrorOrAccepted) {
  const json replacements[] = {nullptr,       true,           -1,     1e300,          "text", "\xFF",
                               json::array(), json::object(), {1, 2}, {{"type", "x"}}};
  uint32_t random = 3;
  const auto next = [&](size_t below) { return (random = random * 1664525 + 1013904223) / 65536 % below; };
  for (const bool is_gguf : {false, true}) {
    const json whole = is_gguf ? small_gguf("gpt-2") : small_file();
    for (int trial = 0; trial < 150; trial++) {
      json damaged = whole;
      for (json* at = &damaged;;) {
        if (at->is_structured() && !at->empty() && (at == &damaged || next(3) > 0)) {
          auto child = at->begin();
          std::advance(child, next(std::min<size_t>(at->size(), 20)));
          at = &*child;
          continue;
        }
        *at = replacements[next(std::size(replacements))];
        break;
      }
      error_of([&] {
        const auto tokenizer = is_gguf ? Tokenizer::from_gguf(damaged) : Tokenizer::from_json(damaged, nullptr);
        tokenizer.encode("the corn <|start|> 12", {.parse_special = true});
      });
    }
  }
}

TEST(ByteLevel, EveryByteComesBack) {
  std::string all;
  for (int byte = 0; byte < 256; byte++) all += static_cast<char>(byte);
  EXPECT_EQ(bytes_of_byte_level(byte_level_of_bytes(all)), all);
  EXPECT_EQ(byte_level_of_bytes(" the\n"), "ĠtheĊ");
  EXPECT_EQ(bytes_of_byte_level("▁the"), std::nullopt);
}

}  // namespace
}  // namespace nibble
