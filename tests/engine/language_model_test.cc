#include "nibble/language_model.h"

#include "checkpoint/test_files.h"
#include "engine/chat.h"
#include "engine/text.h"
#include "goldens.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

const std::filesystem::path kSilent = kModels / "llama-ct-mxfp4";

TEST(ChatPrompt, IsTheRenderedTemplate) {
  const Checkpoint checkpoint = open_checkpoint(kTalking);
  const Tokenizer tokenizer = load_tokenizer(kTalking);
  const auto text = [&](const Json& messages, const Json& variables = {}) {
    return tokenizer.decode(chat_prompt(checkpoint, tokenizer, messages, variables).tokens);
  };
  const Json user = {{"role", "user"}, {"content", "Hi"}}, system = {{"role", "system"}, {"content", "Be brief"}};
  EXPECT_EQ(text(Json::array({user})), "<|start|>user\nHi<|end|>\n<|start|>assistant\n");
  EXPECT_EQ(text(Json::array({system, user})),
            "<|start|>system\nBe brief<|end|>\n<|start|>user\nHi<|end|>\n<|start|>assistant\n");
  EXPECT_EQ(text(Json::array({user}), {{"enable_thinking", true}}), text(Json::array({user})));
  const auto ids = chat_prompt(checkpoint, tokenizer, Json::array({user}), {}).tokens;
  EXPECT_EQ(std::ranges::count(ids, 329), 2);  // special tokens of the template are tokens
  EXPECT_EQ(std::ranges::count(ids, 330), 1);
}

TEST(ChatPrompt, VariablesReachTheTemplate) {
  const TemporaryFolder folder;
  std::filesystem::copy(kTalking, folder.path());
  folder.write("chat_template.jinja", "{{ bos_token }}{{ eos_token }}{{ enable_thinking }}");
  const Checkpoint checkpoint = open_checkpoint(folder.path());
  const Tokenizer tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer.decode(chat_prompt(checkpoint, tokenizer, Json::array(), {{"enable_thinking", false}}).tokens),
            "<|start|><|end|>False");
  EXPECT_EQ(tokenizer.decode(chat_prompt(checkpoint, tokenizer, Json::array(), {{"bos_token", "mine"}}).tokens),
            "mine<|end|>");
  folder.write("chat_template.jinja", "{{ raise_exception('no system, please') }}");
  expect_parts(error_of([&] { chat_prompt(checkpoint, tokenizer, Json::array(), {}); }), {"no system, please"});
}

TEST(ChatPrompt, NeedsATemplate) {
  const TemporaryFolder folder;
  std::filesystem::copy(kTalking, folder.path());
  std::filesystem::remove(folder.path() / "tokenizer_config.json");
  const Checkpoint checkpoint = open_checkpoint(folder.path());
  const Tokenizer tokenizer = load_tokenizer(folder.path());
  expect_parts(error_of([&] { chat_prompt(checkpoint, tokenizer, Json::array(), {}); }),
               {folder.path().string(), "has no chat template"});
}

TEST(LanguageModel, AnswersTokensTextAndMessages) {
  const Golden golden = read_golden(kTalking);
  LanguageModel model(kTalking, {.num_threads = 1});
  EXPECT_EQ(model.vocab_size(), 341);
  const LanguageModel::Sampling sampling{.max_new_tokens = 16};
  std::string heard;
  const auto answer = model.complete(golden.prompt, sampling, [&](std::string_view text) { heard += text; });
  EXPECT_EQ(answer.tokens, golden.greedy);
  EXPECT_EQ(heard, answer.text);
  EXPECT_FALSE(answer.stopped);
  EXPECT_GT(answer.prefill_tok_s, 0);
  EXPECT_GT(answer.decode_tok_s, 0);
  EXPECT_GT(answer.read_gbps, 0);
  EXPECT_EQ(model.complete(golden.prompt, sampling).tokens, golden.greedy);  // each call begins anew

  const auto chat = model.chat("Hi", sampling);
  const auto prompt = model.tokenize("<|start|>user\nHi<|end|>\n<|start|>assistant\n", true);
  EXPECT_EQ(chat.tokens, model.complete(prompt, sampling).tokens);
  EXPECT_EQ(model.complete("Hi", sampling).tokens, model.complete(model.tokenize("Hi"), sampling).tokens);

  LanguageModel::Sampling hot{.max_new_tokens = 16, .temperature = 3, .top_k = 50, .top_p = 0.99f, .seed = 4};
  const auto first = model.complete(golden.prompt, hot);
  EXPECT_EQ(model.complete(golden.prompt, hot).tokens, first.tokens);
  hot.seed = 5;
  EXPECT_NE(model.complete(golden.prompt, hot).tokens, first.tokens);
}

TEST(LanguageModel, LogitsAreTheGoldenOnes) {
  const Golden golden = read_golden(kSilent);
  LanguageModel model(kSilent, {.backend = "reference"});
  const auto logits = model.logits(golden.prompt);
  ASSERT_EQ(logits.size(), golden.logits.size());
  for (size_t i = 0; i < logits.size(); i++) ASSERT_NEAR(logits[i], golden.logits[i], 1e-3);
  EXPECT_EQ(model.logits(golden.prompt), logits);
}

TEST(LanguageModel, Errors) {
  LanguageModel model(kSilent, {.num_threads = 1, .max_len = 10});
  expect_parts(error_of([&] { model.complete("Hi", {}); }), {kSilent.string(), "has no tokenizer"});
  expect_parts(error_of([&] { model.chat("Hi", {}); }), {kSilent.string(), "has no tokenizer"});
  expect_parts(error_of([&] { model.tokenize("Hi"); }), {"has no tokenizer"});
  expect_parts(error_of([&] { model.logits(std::vector<int32_t>(11, 1)); }), {"11 tokens", "context of 10"});
  expect_parts(error_of([&] { model.logits(std::vector<int32_t>{500}); }), {"token 500", "131 tokens"});
  expect_parts(error_of([&] { model.complete(std::vector<int32_t>{1}, {.temperature = -1}); }), {"temperature is -1"});
  expect_parts(error_of([&] { LanguageModel(kSilent, {.backend = "tpu"}); }), {"tpu", "cpu, reference"});
  expect_parts(error_of([&] { LanguageModel("nowhere"); }), {"nowhere"});
}

}  // namespace
}  // namespace nibble
