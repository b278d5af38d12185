// Published tokenizers against the ids that other software gives.
#include <gtest/gtest.h>

#include "text/files.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

const std::filesystem::path kTokenizers = std::filesystem::path(NIBBLE_FIXTURES) / "tokenizers";

void expect_goldens(const Tokenizer& tokenizer, const nlohmann::json& goldens) {
  for (const auto& golden : goldens) {
    const auto text = golden["text"].get<std::string>();
    const auto ids = tokenizer.encode(text, {.parse_special = true});
    EXPECT_EQ(ids, golden["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer.decode(ids), golden["decoded"].get<std::string>());
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), golden["decoded"].get<std::string>());
  }
}

TEST(TokenizerFixtures, EveryGoldenAndItsRewrittenFile) {
  if (!have_fixtures(kTokenizers)) return;
  for (const char* name : {"gpt-2", "llama-bpe"}) {
    SCOPED_TRACE(name);
    const auto file = parse_json(read_xz_file(kTokenizers / name / "tokenizer.json.xz"));
    const auto tokenizer = Tokenizer::from_json(file, nullptr);
    const auto goldens = read_json_file(kTokenizers / name / "golden.json");
    EXPECT_EQ(goldens.size(), 401u);
    expect_goldens(tokenizer, goldens);
    expect_goldens(Tokenizer::from_json(tokenizer.to_tokenizer_json(), nullptr), goldens);
  }
}

TEST(TokenizerFixtures, Gpt2VocabularyTexts) {
  if (!have_fixtures(kTokenizers)) return;
  const auto file = parse_json(read_xz_file(kTokenizers / "gpt-2" / "tokenizer.json.xz"));
  const auto tokenizer = Tokenizer::from_json(file, nullptr);
  const std::string texts = read_text_file(kTokenizers / "gpt-2" / "vocab.inp");
  std::istringstream expected(read_text_file(kTokenizers / "gpt-2" / "vocab.out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  int num_texts = 0;
  for (size_t begin = 0; begin < texts.size(); num_texts++) {
    const size_t end = texts.find(separator, begin);
    const std::string text = texts.substr(begin, end - begin);
    std::string line, actual;
    std::getline(expected, line);
    for (const int32_t id : tokenizer.encode(text)) actual += " " + std::to_string(id);
    EXPECT_EQ(actual, line) << text;
    if (end == std::string::npos) break;
    begin = end + separator.size();
  }
  EXPECT_GT(num_texts, 30);
}

}  // namespace
}  // namespace nibble
