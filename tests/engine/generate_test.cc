#include "engine/generate.h"

#include "checkpoint/test_files.h"
#include "engine/text.h"
#include "goldens.h"

namespace nibble {
namespace {

// What the filter shows of each piece, then at the end; "|" between them.
std::string filtered(std::vector<std::string> stops, std::initializer_list<std::string_view> pieces) {
  StopFilter filter(std::move(stops));
  std::string shown;
  for (std::string_view piece : pieces) shown += filter.push(piece) + "|";
  return shown + filter.finish() + (filter.stopped() ? "#" : "");
}

TEST(StopFilter, ShowsEverythingWithoutStops) {
  EXPECT_EQ(filtered({}, {"one ", "two"}), "one |two|");
  EXPECT_EQ(filtered({""}, {"one ", "two"}), "one |two|");  // an empty text never stops
}

TEST(StopFilter, StopsBeforeTheText) {
  EXPECT_EQ(filtered({"END"}, {"one END two", "three"}), "one ||#");
  EXPECT_EQ(filtered({"END"}, {"END"}), "|#");
  EXPECT_EQ(filtered({"two", "one"}, {"zero one two"}), "zero |#");
}

TEST(StopFilter, HoldsBackWhatMayBecomeAStop) {
  EXPECT_EQ(filtered({"END"}, {"aE", "N", "D", "b"}), "a||||#");
  EXPECT_EQ(filtered({"END"}, {"aE", "N", "x"}), "a||ENx|");
  EXPECT_EQ(filtered({"END"}, {"aEN"}), "a|EN");  // shown at the end
  EXPECT_EQ(filtered({"aab"}, {"aa", "a", "b"}), "|a||#");
  EXPECT_EQ(filtered({"\n\n"}, {"x\n", "y\n", "\n"}), "x|\ny||#");
}

TEST(StopFilter, AStopThatIsWholeGoesBeforeOneThatMayBecome) {
  EXPECT_EQ(filtered({"abc", "b"}, {"a", "b"}), "|a|#");
  EXPECT_EQ(filtered({"xabc", "b"}, {"-xab"}), "-xa|#");
  EXPECT_EQ(filtered({"b", "abc"}, {"zabc"}), "z|#");  // the one that begins first
}

// ---- with models ----

std::vector<int32_t> ids(std::initializer_list<int32_t> list) { return list; }

class Generate : public testing::Test {
 protected:
  const Golden golden = read_golden(kModels / "llama-bf16");
  Engine engine = open_engine(golden.model);
  Session session{engine};
  const Tokenizer tokenizer = load_tokenizer(golden.folder);

  GenerateResult generate_tokens(const GenerateOptions& options) {
    session.truncate(0);
    return generate(session, golden.prompt, options, nullptr, {});
  }
};

TEST_F(Generate, GivesTheGoldenTokens) {
  const GenerateResult result = generate_tokens({.max_new_tokens = 16});
  EXPECT_EQ(result.tokens, golden.greedy);
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.prompt_tokens, 16);
  EXPECT_EQ(result.decode_steps, 15);  // the last token needs none
  EXPECT_EQ(session.length(), 16 + 15);
  EXPECT_GT(result.prefill_tok_s(), 0);
  EXPECT_GT(result.decode_tok_s(), 0);
  // The cache grows by two layers of 2 × 2 heads × 22 halves with each position.
  const int64_t weights = session.decode_step().weight_bytes();
  EXPECT_DOUBLE_EQ(result.bytes_per_token, static_cast<double>(weights) + 2 * 2 * 44 * 2 * (17 + 31) / 2.0);
}

TEST_F(Generate, NoTokensAreWanted) {
  const GenerateResult result = generate_tokens({.max_new_tokens = 0});
  EXPECT_EQ(result.tokens, ids({}));
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  EXPECT_EQ(result.bytes_per_token, 0);
  EXPECT_EQ(result.decode_tok_s(), 0);
}

TEST_F(Generate, StopsAtAStopToken) {
  const int32_t stop = golden.greedy[3];
  const auto first = std::ranges::find(golden.greedy, stop);
  const GenerateResult result = generate_tokens({.stop_tokens = {340, stop}});
  EXPECT_EQ(result.tokens, std::vector<int32_t>(golden.greedy.begin(), first));
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
}

TEST_F(Generate, StopsWhereTheContextEnds) {
  Engine small(golden.model, {.backend = {.num_threads = 1}, .max_len = 20});
  Session short_session(small);
  const GenerateResult result = generate(short_session, golden.prompt, {}, nullptr, {});
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  EXPECT_EQ(short_session.length(), 20);
  EXPECT_EQ(result.tokens, std::vector<int32_t>(golden.greedy.begin(), golden.greedy.begin() + 5));
}

TEST_F(Generate, APromptThatFillsTheContextStillGivesOneToken) {
  Engine small(golden.model, {.backend = {.num_threads = 1}, .max_len = 16});
  Session full(small);
  EXPECT_EQ(generate(full, golden.prompt, {}, nullptr, {}).tokens, ids({golden.greedy[0]}));
}

TEST_F(Generate, StreamsTheTextThatTheTokensMean) {
  std::string streamed;
  int pieces = 0;
  const GenerateResult result = generate(session, golden.prompt, {.max_new_tokens = 16}, &tokenizer, [&](auto text) {
    streamed += text;
    pieces++;
  });
  EXPECT_EQ(result.tokens, golden.greedy);
  EXPECT_EQ(streamed, result.text);
  EXPECT_GT(pieces, 1);
  StreamDecoder decoder(tokenizer);
  std::string expected;
  for (int32_t token : golden.greedy) expected += decoder.push(token);
  EXPECT_EQ(result.text, expected + decoder.finish());
}

TEST_F(Generate, StopsAtAStopText) {
  const GenerateResult whole = generate(session, golden.prompt, {.max_new_tokens = 16}, &tokenizer, {});
  ASSERT_GT(whole.text.size(), 8u);
  const std::string stop = whole.text.substr(whole.text.size() / 2, 4);
  session.truncate(0);
  const GenerateResult result =
      generate(session, golden.prompt, {.max_new_tokens = 16, .stop_texts = {"never", stop}}, &tokenizer, {});
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
  EXPECT_EQ(result.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_LT(result.tokens.size(), whole.tokens.size());
}

TEST_F(Generate, ASecondAnswerGoesOnWhereTheFirstEnded) {
  generate_tokens({.max_new_tokens = 8});
  // The eighth token is sampled but not yet in the cache; it and its followers come as a prompt.
  const GenerateResult rest = generate(session, ids({golden.greedy[7]}), {.max_new_tokens = 8}, nullptr, {});
  EXPECT_EQ(rest.tokens, std::vector<int32_t>(golden.greedy.begin() + 8, golden.greedy.end()));
}

TEST_F(Generate, SamplingRepeatsWithASeed) {
  const GenerateOptions options{.sampling = {.temperature = 2, .seed = 42}, .max_new_tokens = 16};
  const GenerateResult first = generate_tokens(options);
  EXPECT_EQ(generate_tokens(options).tokens, first.tokens);
  EXPECT_NE(first.tokens, golden.greedy);
}

TEST_F(Generate, ThePenaltyKnowsThePrompt) {
  // Everything seen is pushed far down, so that no token of the prompt and none twice can come.
  const GenerateResult result = generate_tokens({.sampling = {.repetition_penalty = 100}, .max_new_tokens = 16});
  for (size_t i = 0; i < result.tokens.size(); i++) {
    EXPECT_EQ(std::ranges::count(golden.prompt, result.tokens[i]), 0);
    EXPECT_EQ(std::ranges::count(result.tokens, result.tokens[i]), 1);
  }
}

}  // namespace
}  // namespace nibble
