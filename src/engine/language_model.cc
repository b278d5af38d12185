#include "nibble/language_model.h"

#include "base/error.h"
#include "engine/chat.h"
#include "engine/generate.h"
#include "engine/session.h"
#include "engine/text.h"

namespace nibble {

struct LanguageModel::State {
  State(const std::filesystem::path& path, const Options& options)
      : engine(path, {.backend = {options.backend, options.num_threads, options.activation_bits},
                      .max_len = options.max_len,
                      .packed_cache = options.packed_cache}),
        session(engine),
        tokenizer(find_tokenizer(engine.checkpoint())) {}

  const Tokenizer& need_tokenizer() const {
    if (!tokenizer) throw_input_error("{}: has no tokenizer; use token ids", engine.checkpoint().path.string());
    return *tokenizer;
  }

  const Tokenizer* tokenizer_or_null() const { return tokenizer ? &*tokenizer : nullptr; }

  Answer complete(std::span<const int32_t> tokens, std::vector<int32_t> stops, const Sampling& s,
                  const OnText& on_text);

  Engine engine;
  Session session;
  std::optional<Tokenizer> tokenizer;
};

LanguageModel::LanguageModel(const std::filesystem::path& path) : LanguageModel(path, Options{}) {}
LanguageModel::LanguageModel(const std::filesystem::path& path, const Options& options)
    : state_(std::make_unique<State>(path, options)) {}
LanguageModel::~LanguageModel() = default;
LanguageModel::LanguageModel(LanguageModel&&) noexcept = default;
LanguageModel& LanguageModel::operator=(LanguageModel&&) noexcept = default;

LanguageModel::Answer LanguageModel::chat(std::string_view message, const Sampling& sampling, const OnText& on_text) {
  const Tokenizer& tokenizer = state_->need_tokenizer();
  const auto messages = nlohmann::ordered_json::array({{{"role", "user"}, {"content", message}}});
  return state_->complete(chat_prompt(state_->engine.checkpoint(), tokenizer, messages, {}).tokens,
                          chat_stop_tokens(state_->engine.checkpoint(), tokenizer), sampling, on_text);
}

LanguageModel::Answer LanguageModel::complete(std::string_view text, const Sampling& sampling, const OnText& on_text) {
  const Tokenizer& tokenizer = state_->need_tokenizer();
  return complete(tokenizer.encode(text, {.add_bos = tokenizer.adds_bos()}), sampling, on_text);
}

LanguageModel::Answer LanguageModel::complete(std::span<const int32_t> tokens, const Sampling& sampling,
                                              const OnText& on_text) {
  return state_->complete(tokens, stop_tokens(state_->engine.checkpoint()), sampling, on_text);
}

LanguageModel::Answer LanguageModel::State::complete(std::span<const int32_t> tokens, std::vector<int32_t> stops,
                                                     const Sampling& s, const OnText& on_text) {
  session.truncate(0);
  GenerateResult r = generate(session, tokens,
                              {.sampling = {.repetition_penalty = s.repetition_penalty,
                                            .temperature = s.temperature,
                                            .top_k = s.top_k,
                                            .top_p = s.top_p,
                                            .min_p = s.min_p,
                                            .seed = s.seed},
                               .max_new_tokens = s.max_new_tokens,
                               .stop_tokens = std::move(stops)},
                              tokenizer_or_null(), on_text);
  return {.text = std::move(r.text),
          .tokens = std::move(r.tokens),
          .stopped = r.finish_reason == FinishReason::stop,
          .prefill_tok_s = r.prefill_tok_s(),
          .decode_tok_s = r.decode_tok_s(),
          .read_gbps = r.read_gbps()};
}

std::vector<float> LanguageModel::logits(std::span<const int32_t> tokens) {
  std::vector<float> out(tokens.size() * static_cast<size_t>(vocab_size()));
  state_->session.truncate(0);
  state_->session.forward(tokens, state_->engine.options().prefill_block, out.data());
  return out;
}

std::vector<int32_t> LanguageModel::tokenize(std::string_view text, bool parse_special) const {
  return state_->need_tokenizer().encode(text, {.parse_special = parse_special});
}

int64_t LanguageModel::vocab_size() const { return state_->engine.model().config.vocab_size; }

}  // namespace nibble
