// Small tokenizers of many kinds against what their own libraries make of awkward texts
// (tools/make_tokenizer_goldens.py), and what is wrong in such files.
#include <chrono>
#include <cmath>

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/charsmap.h"
#include "text/files.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/regex.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace nibble {
namespace {

using nlohmann::json;

const std::filesystem::path kGoldens = std::filesystem::path(NIBBLE_TEST_DATA) / "text" / "tokenizers";

std::string golden_error(const std::function<void()>& work) {
  try {
    work();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

const json& case_of(const json& goldens, const std::string& name) {
  for (const json& golden : goldens["cases"])
    if (golden["name"] == name) return golden;
  throw_input_error("no golden named '{}'", name);
}

TEST(TokenizerGoldens, EveryTokenizerJsonAndItsRewrittenFile) {
  const json goldens = read_json_file(kGoldens / "json_golden.json");
  EXPECT_GE(goldens["cases"].size(), 18u);
  for (const json& golden : goldens["cases"]) {
    SCOPED_TRACE(golden["name"]);
    const auto tokenizer = Tokenizer::from_json(golden["file"], nullptr);
    const auto rewritten = Tokenizer::from_json(tokenizer.to_tokenizer_json(), tokenizer.to_tokenizer_config());
    for (const json& entry : golden["texts"]) {
      const auto text = entry["text"].get<std::string>();
      const auto ids = tokenizer.encode(text, {.parse_special = true});
      EXPECT_EQ(json(ids), entry["ids"]) << text;
      EXPECT_EQ(replace_invalid_utf8(tokenizer.decode(ids)), entry["decoded"].get<std::string>()) << text;
      EXPECT_EQ(streamed(tokenizer, ids), entry["decoded"].get<std::string>()) << text;
      const EncodeOptions roles{
          .add_bos = tokenizer.adds_bos(), .add_eos = tokenizer.adds_eos(), .parse_special = true};
      EXPECT_EQ(json(tokenizer.encode(text, roles)), entry["with_roles"]) << text;
      EXPECT_EQ(json(rewritten.encode(text, roles)), entry["with_roles"]) << text;
      EXPECT_EQ(rewritten.decode(ids), tokenizer.decode(ids)) << text;
    }
  }
}

TEST(TokenizerGoldens, EverySentencePieceModel) {
  const json goldens = read_json_file(kGoldens / "sentencepiece_golden.json");
  EXPECT_EQ(goldens["cases"].size(), 6u);
  for (const json& golden : goldens["cases"]) {
    SCOPED_TRACE(golden["name"]);
    const std::string model = read_text_file(kGoldens / (golden["name"].get<std::string>() + ".model"));
    const auto tokenizer = Tokenizer::from_sentencepiece(model, nullptr);
    EXPECT_EQ(tokenizer.bos(), golden["bos"].get<int32_t>());
    EXPECT_EQ(tokenizer.eos(), golden["eos"].get<int32_t>());
    for (const json& entry : golden["texts"]) {
      const std::string text = bytes_of_hex(entry["bytes"]);
      const auto ids = tokenizer.encode(text);
      EXPECT_EQ(json(ids), entry["ids"]) << text;
      if (entry["has_unknown"]) continue;  // shown as the model's ⁇ there, by name here
      EXPECT_EQ(replace_invalid_utf8(tokenizer.decode(ids)), entry["decoded"].get<std::string>()) << text;
      EXPECT_EQ(streamed(tokenizer, ids), entry["decoded"].get<std::string>()) << text;
    }
  }
}

// The same vocabulary as GGUF holds it, without normalization: spaces as they are, and one before each text.
json gguf_of_llama2(const json& golden) {
  const json& file = golden["file"];
  const auto num_tokens = file["model"]["vocab"].size() + 8;
  json tokens = json::array(), types = json::array(), scores = json::array();
  for (size_t i = 0; i < num_tokens; i++) {
    tokens.push_back("[PAD" + std::to_string(i) + "]");
    types.push_back(5);
    scores.push_back(0.0);
  }
  std::map<std::string, int> ranks;
  const json& merges = file["model"]["merges"];
  for (size_t rank = 0; rank < merges.size(); rank++)
    ranks.emplace(merges[rank][0].get<std::string>() + merges[rank][1].get<std::string>(), static_cast<int>(rank));
  for (const auto& [text, id] : file["model"]["vocab"].items()) {
    const bool is_byte = text.starts_with("<0x");
    tokens[id.get<size_t>()] = text;
    types[id.get<size_t>()] = text == "<unk>" ? 2 : is_byte ? 6 : 1;
    scores[id.get<size_t>()] = ranks.contains(text) ? -ranks[text] : -100000;
  }
  for (const json& token : file["added_tokens"]) {
    tokens[token["id"].get<size_t>()] = token["content"];
    types[token["id"].get<size_t>()] = token["content"] == "<unk>" ? 2 : token["special"] ? 3 : 4;
  }
  return {{"tokenizer.ggml.model", "llama"},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.scores", scores},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.bos_token_id", file["model"]["vocab"].size()}};
}

TEST(TokenizerGoldens, ALlamaVocabularyOfGgufGivesTheSameIds) {
  const json goldens = read_json_file(kGoldens / "json_golden.json");
  const json& golden = case_of(goldens, "llama2");
  const auto tokenizer = Tokenizer::from_gguf(gguf_of_llama2(golden));
  const auto rewritten = Tokenizer::from_json(tokenizer.to_tokenizer_json(), tokenizer.to_tokenizer_config());
  EXPECT_TRUE(tokenizer.adds_bos());
  int num_compared = 0;
  for (const json& entry : golden["texts"]) {
    const auto text = entry["text"].get<std::string>();
    // A GGUF file does not say where a token stands alone, takes white space, or is normalized.
    if (text.find("word") != text.npos || text.find("<pad>") != text.npos || text.find("Cafe") != text.npos) continue;
    const auto ids = tokenizer.encode(text, {.parse_special = true});
    EXPECT_EQ(json(ids), entry["ids"]) << text;
    EXPECT_EQ(tokenizer.decode(ids), entry["decoded"].get<std::string>()) << text;
    EXPECT_EQ(rewritten.encode(text, {.parse_special = true}), ids) << text;
    num_compared++;
  }
  EXPECT_GT(num_compared, 35);
}

// Scores that tie are merged from left to right; a character without a token still takes part.
TEST(Tokenizer, ScoredMergesByTheirRules) {
  const auto make = [](const std::vector<std::pair<std::string, double>>& words) {
    json tokens = {"<unk>"}, types = {2}, scores = {0.0};
    for (const auto& [text, score] : words) {
      tokens.push_back(text);
      types.push_back(1);
      scores.push_back(score);
    }
    return Tokenizer::from_gguf({{"tokenizer.ggml.model", "llama"},
                                 {"tokenizer.ggml.tokens", tokens},
                                 {"tokenizer.ggml.scores", scores},
                                 {"tokenizer.ggml.add_space_prefix", false},
                                 {"tokenizer.ggml.token_type", types}});
  };
  using Ids = std::vector<int32_t>;
  const auto ties = make({{"a", -5}, {"b", -5}, {"c", -5}, {"bc", -1}, {"ab", -1}});
  EXPECT_EQ(ties.encode("abc"), (Ids{5, 3}));
  EXPECT_EQ(ties.encode("aabcc"), (Ids{1, 5, 3, 3}));
  const auto pieces = make({{"xy", -1}, {"xyz", -2}, {"z", -3}});
  EXPECT_EQ(pieces.encode("xyz"), (Ids{2}));
  EXPECT_EQ(pieces.encode("xxyyx"), (Ids{0, 1, 0}));  // neighbours without a token are one unknown token
  EXPECT_EQ(pieces.encode(""), (Ids{}));
}

TEST(Tokenizer, DecodingLosesOnlyTheSpaceThatEncodingAdded) {
  const json goldens = read_json_file(kGoldens / "json_golden.json");
  const auto tokenizer = Tokenizer::from_json(case_of(goldens, "llama2")["file"], nullptr);
  const auto ids = tokenizer.encode("  the corn");
  EXPECT_EQ(tokenizer.decode(ids), "  the corn");
  EXPECT_EQ(tokenizer.decode(std::span(ids).subspan(1)).find("the"), tokenizer.decode(ids).find("the") - 2);
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(*tokenizer.find("▁")), "");
  EXPECT_EQ(stream.push(*tokenizer.find("▁")), " ");
  stream.finish();
  EXPECT_EQ(stream.push(*tokenizer.find("▁")), "");  // as new
}

TEST(Tokenizer, ByteTokensOfAWholeCharacterAreThatCharacter) {
  const json goldens = read_json_file(kGoldens / "json_golden.json");
  const auto tokenizer = Tokenizer::from_json(case_of(goldens, "llama2")["file"], nullptr);
  const auto ids = tokenizer.encode("🦉");
  EXPECT_GE(ids.size(), 4u);
  EXPECT_EQ(tokenizer.decode(ids), "🦉");
  EXPECT_EQ(tokenizer.token_bytes(*tokenizer.find("<0xF0>")), "\xF0");
}

TEST(TokenizerJson, WhatIsWrongAroundTheModelIsNamed) {
  const json goldens = read_json_file(kGoldens / "json_golden.json");
  const auto with = [&](const std::string& name, const char* pointer, const json& value) {
    json file = case_of(goldens, name)["file"];
    file[json::json_pointer(pointer)] = value;
    return golden_error([&] { Tokenizer::from_json(file, nullptr).encode("the corn"); });
  };
  const auto expect = [](const std::string& error, const char* part) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  expect(with("llama2", "/normalizer", {{"type", "BertNormalizer"}}), "'BertNormalizer' is not supported");
  expect(with("llama2", "/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "?"}}), "no base64");
  expect(with("llama2", "/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAAAA=="}}), "must fit");
  expect(with("llama2", "/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}}), "'('");
  expect(with("llama2", "/pre_tokenizer", {{"type", "BertPreTokenizer"}}), "'BertPreTokenizer' is not supported");
  expect(with("llama2", "/pre_tokenizer", {{"type", "Metaspace"}}), "replacement is null");
  expect(with("llama2", "/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "x"}}), "x");
  expect(with("llama2", "/decoder", {{"type", "CTC"}}), "'CTC' is not supported");
  expect(with("llama2", "/decoder", {{"type", "ByteLevel"}}), "no ByteLevel");
  expect(with("llama2", "/decoder", {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 1}}), "Strip is");
  expect(with("gpt4o", "/decoder", {{"type", "Fuse"}}), "no ByteLevel");
  expect(with("llama2", "/post_processor", {{"type", "TemplateProcessing"}, {"single", json::array()}}), "0 times");
  expect(with("llama2", "/post_processor/special_tokens", nullptr), "has ids null");
  expect(with("llama2", "/post_processor", {{"type", "BertProcessing"}}), "cls is null");
  expect(with("llama2", "/model/type", "WordPiece"), "\"WordPiece\", \"BPE\" or \"Unigram\" expected");
  expect(with("llama2", "/model/end_of_word_suffix", "</w>"), "end_of_word_suffix is \"</w>\"");
  expect(with("unigram", "/model/vocab/3", {"x", "y"}), "entry 3 is");
  expect(with("unigram", "/model/unk_id", 100000), "unk_id is 100000");
  json doubles = json::array();
  for (int i = 0; i < 40; i++)
    doubles.push_back({{"type", "Replace"}, {"pattern", {{"String", "o"}}}, {"content", "oo"}});
  expect(with("llama2", "/normalizer", {{"type", "Sequence"}, {"normalizers", doubles}}),
         "normalizer: the replacements make more");
  json deep = {{"type", "Lowercase"}};
  for (int i = 0; i < 100; i++) deep = {{"type", "Sequence"}, {"normalizers", json::array({deep})}};
  expect(with("llama2", "/normalizer", deep), "nested more than");
}

TEST(SentencePiece, WhatIsWrongIsNamed) {
  const auto error = [](const std::string& bytes) {
    return golden_error([&] { Tokenizer::from_sentencepiece(bytes, nullptr).encode("the corn"); });
  };
  EXPECT_NE(error("").find("0 pieces"), std::string::npos);
  EXPECT_NE(error("\x0A\x7F").find("longer than the message"), std::string::npos);
  EXPECT_NE(error(std::string(20, '\xFF')).find("more than 64 bits"), std::string::npos);
  const std::string nan = std::string("\x0A\x08\x0A\x01x\x15", 6) + std::string("\x00\x00\xC0\x7F", 4);
  EXPECT_NE(error(nan).find("score nan"), std::string::npos) << error(nan);
  EXPECT_NE(error(std::string("\x0A\x05\x0A\x01x\x18\x09", 7)).find("type 9"), std::string::npos);
  EXPECT_NE(error(std::string("\x0A\x03\x0A\x01\xFF", 5)).find("no UTF-8"), std::string::npos);
  EXPECT_NE(error(std::string("\x0A\x03\x0A\x01x\x12\x02\x18\x03", 9)).find("model_type 3"), std::string::npos);
  EXPECT_NE(error(std::string("\x0A\x03\x0A\x01x\x0A\x03\x0A\x01x", 10)).find("may occur once"), std::string::npos);
}

// Whatever the bytes are, the result is a tokenizer or an InputError.
TEST(SentencePiece, DamagedModelsAreErrorsOrAccepted) {
  uint32_t random = 7;
  const auto next = [&](size_t below) { return (random = random * 1664525 + 1013904223) / 65536 % below; };
  int num_errors = 0;
  for (const char* name : {"bpe_identity.model", "unigram_nmt.model"}) {
    const std::string model = read_text_file(kGoldens / name);
    for (int trial = 0; trial < 200; trial++) {
      std::string damaged = trial % 4 == 0 ? model.substr(0, next(model.size())) : model;
      for (size_t i = next(4); i > 0 && !damaged.empty(); i--)
        damaged[next(damaged.size())] = static_cast<char>(next(256));
      num_errors += golden_error([&] { Tokenizer::from_sentencepiece(damaged, nullptr).encode("the corn \xFF 12"); }) !=
                    "no error";
    }
  }
  EXPECT_GT(num_errors, 50);
}

TEST(Charsmap, Base64ComesBack) {
  for (const std::string& bytes : {std::string(), std::string("a"), std::string("ab"), std::string("\0\xFF\x10", 3)})
    EXPECT_EQ(bytes_of_base64(base64_of_bytes(bytes)), bytes);
  EXPECT_EQ(base64_of_bytes("light work."), "bGlnaHQgd29yay4=");
  EXPECT_EQ(bytes_of_base64("a?"), std::nullopt);
}

TEST(GgufPreTokenizers, EveryPatternCompilesAndLosesNothing) {
  const std::string text = "Hello WORLD's 1234 中文字 ひら\u0301 x\r\n\r\n   y  \t!!?? 's'LL ａ\u200D €100 ";
  EXPECT_GT(gguf_pre_tokenizers().size(), 20u);
  for (const GgufPreTokenizer& entry : gguf_pre_tokenizers()) {
    SCOPED_TRACE(entry.names[0]);
    PreTokenizerSpec spec;
    for (const SplitStep& step : entry.steps) spec.emplace_back(step);
    const PreTokenizer pre_tokenizer(spec);
    auto scratch = pre_tokenizer.make_scratch();
    pre_tokenizer.split(text, true, scratch);
    std::string joined;
    for (const std::string_view piece : scratch.pieces) joined += piece;
    EXPECT_EQ(joined, text);
    EXPECT_GT(scratch.pieces.size(), 8u);
  }
}

TEST(GgufPreTokenizers, WordsOfKimiKeepChineseApart) {
  PreTokenizerSpec spec{find_gguf_pre_tokenizer("kimi-k2").steps[0]};
  const PreTokenizer pre_tokenizer(spec);
  auto scratch = pre_tokenizer.make_scratch();
  pre_tokenizer.split("中文abc中DEfg's 12345 x", true, scratch);
  EXPECT_EQ(scratch.pieces, (std::vector<std::string_view>{"中文", "abc", "中", "DEfg's", " ", "123", "45", " x"}));
}

// A pattern may need time that grows with the square of the text; such a text is refused, not waited for.
TEST(Regex, APatternThatTakesTooLongIsAnError) {
  const Regex regex("(?=(x+x+)+[yz])");
  Regex::Search search(regex);
  size_t begin, end;
  const auto start = std::chrono::steady_clock::now();
  const std::string error = golden_error([&] { search.find(std::string(100000, 'x'), 0, begin, end); });
  EXPECT_NE(error.find("pattern '(?=(x+x+)+[yz])'"), std::string::npos) << error;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Regex, ReadsWhatOnigurumaReads) {
  const auto match = [](const char* pattern, const std::string& text) {
    const Regex regex(pattern);
    Regex::Search search(regex);
    size_t begin, end;
    return search.find(text, 0, begin, end) ? text.substr(begin, end - begin) : "none";
  };
  EXPECT_EQ(match("[a-z&&[^b]]+", "abc"), "a");
  EXPECT_EQ(match("[a-z&&[bc]]+", "abcd"), "bc");
  EXPECT_EQ(match("[^(\\s|[.,])]+", "ab.c"), "ab");
  EXPECT_EQ(match("[\\p{Han}]+", "あ中文、"), "中文");
  EXPECT_EQ(match("\\p{Han}+", "〱中"), "中");  // U+3031 is shared by Han, but is none
  EXPECT_EQ(match("\\p{^Han}+", "中ab"), "ab");
  EXPECT_EQ(match("\\s+$", "a   \n  b  "), "   ");
  EXPECT_EQ(match("\\p{Letter}+", "12ab"), "ab");
  const std::string far = std::string(100000, ' ') + "x";
  EXPECT_EQ(match("x", far), "x");  // far behind the first place where a match may begin
}

}  // namespace
}  // namespace nibble
