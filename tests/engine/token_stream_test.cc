// Tokens that a backend chooses itself, some at a time, are those that the host samples one by one.
#include "engine/token_stream.h"

#include "engine/generate.h"
#include "goldens.h"

namespace nibble {
namespace {

bool chooses_tokens(Engine& engine) { return Session(engine).max_ahead() > 0; }

// An answer as generate gives it, and what it leaves behind.
struct Answer {
  std::vector<int32_t> tokens, cached;
  FinishReason reason;
  int64_t steps;
  double bytes_per_token;
  bool operator==(const Answer&) const = default;
};

Answer answer_of(Session& session, const std::vector<int32_t>& prompt, const GenerateOptions& options) {
  session.truncate(0);
  const GenerateResult r = generate(session, prompt, options, nullptr, {});
  return {
      r.tokens, {session.tokens().begin(), session.tokens().end()}, r.finish_reason, r.decode_steps, r.bytes_per_token};
}

// The same, token by token, on the host.
Answer host_answer(Session& session, const std::vector<int32_t>& prompt, const GenerateOptions& options) {
  session.truncate(0);
  std::span<const float> logits = session.prefill(prompt);
  Sampler sampler(options.sampling, static_cast<int64_t>(logits.size()));
  for (int32_t token : prompt) sampler.accept(token);
  Answer a{.reason = FinishReason::length, .steps = 0, .bytes_per_token = 0};
  for (;;) {
    const int32_t token = sampler.sample(logits);
    if (std::ranges::count(options.stop_tokens, token) > 0) {
      a.reason = FinishReason::stop;
      break;
    }
    a.tokens.push_back(token);
    sampler.accept(token);
    if (static_cast<int64_t>(a.tokens.size()) == options.max_new_tokens || session.length() == session.max_len()) break;
    logits = session.decode(token);
    a.steps++;
    a.bytes_per_token += static_cast<double>(session.bytes_per_token());
  }
  if (a.steps > 0) a.bytes_per_token /= static_cast<double>(a.steps);
  a.cached.assign(session.tokens().begin(), session.tokens().end());
  return a;
}

const std::vector<SamplingOptions> kSampling = {
    {},
    {.temperature = 1, .seed = 1},
    {.temperature = 0.8f, .top_k = 10, .seed = 2},
    {.temperature = 1, .top_p = 0.9f, .min_p = 0.01f, .seed = 3},
    {.temperature = 1.5f, .top_k = 200, .seed = 4},            // more than the device's candidates
    {.repetition_penalty = 1.3f, .temperature = 1, .seed = 5}  // which the device does not know
};

void expect_host_answer(const char* model, std::span<const SamplingOptions> samplings) {
  const Golden golden = read_golden(kModels / model);
  Engine engine = open_engine(golden.model, "metal", 2);
  ASSERT_TRUE(chooses_tokens(engine));
  Session session(engine);
  for (const SamplingOptions& sampling : samplings) {
    SCOPED_TRACE(fmt::format("{} temperature {} top_k {}", model, sampling.temperature, sampling.top_k));
    GenerateOptions options{.sampling = sampling, .max_new_tokens = 14};
    const Answer host = host_answer(session, golden.prompt, options);
    EXPECT_EQ(answer_of(session, golden.prompt, options), host);
    options.stop_tokens = {host.tokens[5]};  // amid those that are chosen together
    EXPECT_EQ(answer_of(session, golden.prompt, options), host_answer(session, golden.prompt, options));
  }
}

TEST(TokenStream, GivesTheTokensThatTheHostSamples) { expect_host_answer("llama-bf16", kSampling); }

TEST(TokenStream, WithExpertsWindowsAndLatents) {
  for (const char* model : {"gpt_oss-gguf-mxfp4", "deepseek_v3-groups"})
    expect_host_answer(model, std::span(kSampling).first(2));
}

TEST(TokenStream, EndsWhereTheContextDoes) {
  const Golden golden = read_golden(kTalking);
  Engine engine(golden.model, {.backend = {.name = "metal", .num_threads = 2}, .max_len = 29});
  Session session(engine);
  const GenerateOptions options{.max_new_tokens = 100};
  const Answer answer = answer_of(session, golden.prompt, options);
  EXPECT_EQ(answer, host_answer(session, golden.prompt, options));
  EXPECT_EQ(answer.cached.size(), 29u);
}

TEST(TokenStream, TheDeviceDoesMostOfIt) {
  const Golden golden = read_golden(kTalking);
  Engine engine = open_engine(golden.model, "metal", 2);
  Session session(engine);
  for (const SamplingOptions& sampling : {SamplingOptions{}, {.temperature = 0.7f, .top_k = 20, .seed = 1}}) {
    session.truncate(0);
    Sampler sampler(sampling, engine.model().config.vocab_size);
    const int32_t first = sampler.sample(session.prefill(golden.prompt));
    std::vector<int32_t> tokens(8);
    EXPECT_EQ(session.decode_ahead(first, *sampler.choice(), sampler.draws(8), tokens), 8);
    EXPECT_EQ(session.length(), static_cast<int64_t>(golden.prompt.size()) + 8);
    EXPECT_EQ(session.tokens().back(), tokens[6]);  // the last one comes next
    if (sampling.temperature == 0) {
      EXPECT_EQ(tokens, std::vector<int32_t>(golden.greedy.begin() + 1, golden.greedy.begin() + 9));
    }
  }
}

TEST(TokenStream, ForgetsWhatNobodyAskedFor) {
  const Golden golden = read_golden(kTalking);
  Engine engine = open_engine(golden.model, "metal", 2);
  Session session(engine);
  const auto length = static_cast<int64_t>(golden.prompt.size());
  Sampler sampler({}, engine.model().config.vocab_size);
  const int32_t first = sampler.sample(session.prefill(golden.prompt));
  {
    TokenStream stream(session, sampler);
    EXPECT_EQ(stream.next(first, 6), golden.greedy[1]);
    EXPECT_EQ(stream.length(), length + 1);
    EXPECT_EQ(session.length(), length + 6);
  }
  EXPECT_EQ(session.length(), length + 1);
  EXPECT_EQ(sampler.sample(session.decode(golden.greedy[1])), golden.greedy[2]);
}

TEST(TokenStream, OtherBackendsGoTokenByToken) {
  const Golden golden = read_golden(kTalking);
  for (const char* backend : {"cpu", "reference"}) {
    Engine engine = open_engine(golden.model, backend);
    EXPECT_FALSE(chooses_tokens(engine));
    Session session(engine);
    EXPECT_EQ(answer_of(session, golden.prompt, {.max_new_tokens = 16}).tokens, golden.greedy);
  }
}

TEST(Sampler, NumbersForADeviceAreThoseOfTheHost) {
  const SamplingOptions options{.temperature = 1, .seed = 9};
  const std::vector<float> logits(50);
  Sampler one(options, 50), other(options, 50);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 6; i++) tokens.push_back(one.sample(logits));
  EXPECT_EQ(other.draws(3).size(), 3u);
  EXPECT_EQ(other.sample(logits), tokens[0]);  // nothing was used of them
  other.draws(4);
  other.use_draws(2);
  for (size_t i = 3; i < 6; i++) EXPECT_EQ(other.sample(logits), tokens[i]);
}

}  // namespace
}  // namespace nibble
