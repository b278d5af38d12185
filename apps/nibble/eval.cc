// nibble eval: perplexity over a text, and how far a model is from another one.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "base/read_file.h"
#include "commands.h"
#include "engine/text.h"
#include "model_list.h"
#include "text/utf8.h"

namespace nibble {

namespace {

struct EvalArguments {
  ModelArguments model;
  std::string text, tokens, against;
  int64_t window = 512, max_tokens = 0;
  bool json = false;
};

// log softmax(logits), as doubles.
void log_softmax(std::span<const float> logits, std::vector<double>& out) {
  const double largest = *std::ranges::max_element(logits);
  double total = 0;
  for (float logit : logits) total += std::exp(logit - largest);
  const double offset = largest + std::log(total);
  out.resize(logits.size());
  std::ranges::transform(logits, out.begin(), [&](float logit) { return logit - offset; });
}

// The divergence of q from p, sum of p · (log p − log q), both as logarithms.
double kl_divergence(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); i++) sum += std::exp(p[i]) * (p[i] - q[i]);
  return std::max(sum, 0.0);
}

struct Measured {
  std::vector<double> losses, against_losses, divergences;
  int64_t same_best = 0;
};

int64_t best(const std::vector<double>& p) { return std::ranges::max_element(p) - p.begin(); }

// Adds what the logits after `tokens` (of one window) say; `next` is the token after each, -1 after the last.
void measure(std::span<const float> logits, std::span<const float> against, std::span<const int32_t> next,
             Measured& m) {
  const size_t vocab_size = logits.size() / next.size();
  std::vector<double> q, p;
  for (size_t t = 0; t < next.size(); t++) {
    log_softmax(logits.subspan(t * vocab_size, vocab_size), q);
    if (next[t] >= 0) m.losses.push_back(-q[static_cast<size_t>(next[t])]);
    if (against.empty()) continue;
    log_softmax(against.subspan(t * vocab_size, vocab_size), p);
    if (next[t] >= 0) m.against_losses.push_back(-p[static_cast<size_t>(next[t])]);
    m.divergences.push_back(kl_divergence(p, q));
    m.same_best += best(p) == best(q);
  }
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, values.begin() + at);
  return values[static_cast<size_t>(at)];
}

std::vector<int32_t> eval_tokens(const EvalArguments& a, const Checkpoint& checkpoint) {
  if (!a.tokens.empty()) return parse_tokens(a.tokens);
  if (a.text.empty()) throw_input_error("eval needs --text FILE or --tokens 1,2,3");
  const std::string text = read_file(a.text);
  expect_utf8(text, a.text);
  const std::optional<Tokenizer> tokenizer = find_tokenizer(checkpoint);
  if (!tokenizer) throw_input_error("{}: has no tokenizer; give the text as --tokens 1,2,3", a.model.path);
  return tokenizer->encode(text, {.add_bos = tokenizer->adds_bos()});
}

void report(const EvalArguments& a, const Measured& m, size_t num_tokens) {
  const double positions = static_cast<double>(m.divergences.size());
  const double same = positions > 0 ? static_cast<double>(m.same_best) / positions : 0;
  if (a.json) {
    nlohmann::ordered_json json;
    json["tokens"] = num_tokens;
    json["perplexity"] = std::exp(mean(m.losses));
    if (!a.against.empty()) {
      json["against_perplexity"] = std::exp(mean(m.against_losses));
      json["mean_kl"] = mean(m.divergences);
      json["p99_kl"] = percentile(m.divergences, 0.99);
      json["same_best"] = same;
    }
    print_json(json);
    return;
  }
  fmt::print("perplexity      {:.4f} over {} tokens\n", std::exp(mean(m.losses)), num_tokens);
  if (a.against.empty()) return;
  fmt::print("of the other    {:.4f}\n", std::exp(mean(m.against_losses)));
  fmt::print("KL divergence   mean {:.3e}, 99th percentile {:.3e}\n", mean(m.divergences),
             percentile(m.divergences, 0.99));
  fmt::print("same best token {:.2f} %\n", 100 * same);
}

void eval(const EvalArguments& a) {
  ModelFiles files = open_model(a.model.path);
  std::vector<int32_t> tokens = eval_tokens(a, *files.checkpoint);
  if (a.max_tokens > 0 && static_cast<int64_t>(tokens.size()) > a.max_tokens)
    tokens.resize(static_cast<size_t>(a.max_tokens));
  if (tokens.size() < 2) throw_input_error("the text has {} tokens, at least 2 expected", tokens.size());
  const auto vocab_size = static_cast<size_t>(files.model->config.vocab_size);
  check_tokens(tokens, files.model->config, 0, static_cast<int64_t>(tokens.size()));
  int64_t window = std::min({a.window, a.model.ctx, files.model->config.max_position_embeddings});
  std::optional<ModelFiles> other_files;
  if (!a.against.empty()) {
    other_files = open_model(a.against);
    if (const auto other = static_cast<size_t>(other_files->model->config.vocab_size); other != vocab_size)
      throw_input_error("{} has a vocabulary of {}, {} one of {}: they cannot be compared", a.model.path, vocab_size,
                        a.against, other);
    window = std::min(window, other_files->model->config.max_position_embeddings);
  }
  if (window < 2) throw_input_error("a context of {}, in which no token follows another; at least 2 expected", window);
  const auto engine = load_engine(a.model, std::move(files));
  const auto against = other_files ? load_engine(a.model, std::move(*other_files)) : nullptr;

  Session session(*engine);
  std::optional<Session> other_session;
  if (against) other_session.emplace(*against);
  constexpr size_t kBlock = 64;  // logits of so many tokens are kept at once
  std::vector<float> logits(kBlock * vocab_size), other_logits(against ? kBlock * vocab_size : 0);
  const auto progress = progress_bar("evaluating");
  Measured m;
  for (size_t start = 0; start < tokens.size(); start += static_cast<size_t>(window)) {
    session.truncate(0);
    if (other_session) other_session->truncate(0);
    const size_t end = std::min(tokens.size(), start + static_cast<size_t>(window));
    for (size_t at = start; at < end; at += kBlock) {
      const size_t count = std::min(kBlock, end - at);
      const std::span<const int32_t> block(tokens.data() + at, count);
      session.forward(block, static_cast<int64_t>(kBlock), logits.data());
      if (other_session) other_session->forward(block, static_cast<int64_t>(kBlock), other_logits.data());
      std::vector<int32_t> next(block.begin() + 1, block.end());
      next.push_back(at + count < end ? tokens[at + count] : -1);
      measure(std::span(logits).first(count * vocab_size),
              std::span(other_logits).first(against ? count * vocab_size : 0), next, m);
      if (progress) progress(static_cast<int64_t>(at + count), static_cast<int64_t>(tokens.size()));
    }
  }
  report(a, m, tokens.size());
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("eval", "Measure perplexity over a text, and the distance from another model");
  command->footer(
      "The text goes through in windows that do not overlap. With --against, the KL divergence is that of MODEL from "
      "the\n"
      "other: what quantisation cost, if the other is the original.\n\n"
      "  nibble eval models/SmolLM2-NVFP4 --text README.md --against SmolLM2.gguf");
  auto a = std::make_shared<EvalArguments>();
  add_model_arguments(*command, a->model);
  CLI::Option* text = command->add_option("--text", a->text, "The text")->check(not_empty);
  command->add_option("--tokens", a->tokens, "Token ids instead of a text, as in 1,2,3")
      ->check(not_empty)
      ->excludes(text);
  command->add_option("--against", a->against, "Another model of the same vocabulary")
      ->check(not_empty)
      ->transform([](const std::string& name) { return model_path(name).string(); });
  command->add_option("--window", a->window, "Tokens of a window")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 28))
      ->capture_default_str();
  command->add_option("--max-tokens", a->max_tokens, "Only so many tokens of the text; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_flag("--json", a->json, "JSON instead of text");
  command->callback([a] { eval(*a); });
}

}  // namespace nibble
