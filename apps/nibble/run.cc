// nibble run: a prompt in, streamed text out, one line about the speed.
#include <unistd.h>

#include <cstdio>

#include "base/error.h"
#include "commands.h"
#include "engine/chat.h"
#include "engine/generate.h"
#include "engine/text.h"

namespace nibble {

namespace {

struct RunArguments {
  ModelArguments model;
  std::string prompt, tokens, system, thinking;
  bool has_prompt = false, raw = false, json = false, ignore_eos = false;
  int64_t max_new_tokens = 512;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
};

SamplingOptions sampling(const RunArguments& a, const Checkpoint& checkpoint) {
  SamplingOptions options = default_sampling(checkpoint);
  options.temperature = a.temperature.value_or(options.temperature);
  options.top_k = a.top_k.value_or(options.top_k);
  options.top_p = a.top_p.value_or(options.top_p);
  options.min_p = a.min_p.value_or(options.min_p);
  options.repetition_penalty = a.repetition_penalty.value_or(options.repetition_penalty);
  options.seed = a.seed;
  check_sampling_options(options);
  return options;
}

// The prompt as the chat template renders it, or as it is.
std::vector<int32_t> prompt_tokens(const RunArguments& a, const Checkpoint& checkpoint, const Tokenizer* tokenizer) {
  if (!a.tokens.empty()) return parse_tokens(a.tokens);
  if (tokenizer == nullptr) throw_input_error("{}: has no tokenizer; give the prompt as --tokens 1,2,3", a.model.path);
  if (!a.has_prompt && isatty(STDIN_FILENO) == 1)
    throw_input_error("no prompt: give one as the second argument, on stdin, or as --tokens 1,2,3");
  const std::string prompt = a.has_prompt ? a.prompt : read_stdin();
  if (a.raw || !find_chat_template(checkpoint))
    return tokenizer->encode(prompt, {.add_bos = tokenizer->adds_bos(), .parse_special = a.raw});

  auto messages = nlohmann::ordered_json::array();
  if (!a.system.empty()) messages.push_back({{"role", "system"}, {"content", a.system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  auto variables = nlohmann::ordered_json::object();
  if (!a.thinking.empty()) variables["enable_thinking"] = a.thinking == "on";
  return chat_prompt(checkpoint, *tokenizer, messages, variables);
}

void report(const RunArguments& a, const GenerateResult& r, const Tokenizer* tokenizer, double roof_gbps) {
  const double share = roof_gbps > 0 ? r.read_gbps() / roof_gbps : 0;
  if (a.json) {
    nlohmann::ordered_json json;
    json["tokens"] = r.tokens;
    json["text"] = tokenizer != nullptr ? nlohmann::ordered_json(r.text) : nlohmann::ordered_json();
    json["finish_reason"] = r.finish_reason == FinishReason::stop ? "stop" : "length";
    json["prefill_tok_s"] = r.prefill_tok_s();
    json["decode_tok_s"] = r.decode_tok_s();
    json["bytes_per_token"] = static_cast<int64_t>(r.bytes_per_token);
    json["read_gbps"] = r.read_gbps();
    json["roof_gbps"] = roof_gbps;
    json["roof_share"] = share;
    print_json(json);
    return;
  }
  if (tokenizer == nullptr) fmt::print("{}", fmt::join(r.tokens, ","));
  fmt::print("\n");
  std::fflush(stdout);
  fmt::print(stderr,
             "{} + {} tokens; prefill {:.1f} tok/s, decode {:.1f} tok/s; {} a token, {:.1f} GB/s, {:.0f} % of the "
             "measured roof ({:.1f} GB/s)\n",
             r.prompt_tokens, r.tokens.size(), r.prefill_tok_s(), r.decode_tok_s(), bytes_text(r.bytes_per_token),
             r.read_gbps(), 100 * share, roof_gbps);
  if (const std::string note = cache_note(r.bytes_per_token); share > 1 && !note.empty())
    fmt::print(stderr, "({})\n", note);
}

void run(const RunArguments& a) {
  const auto engine = load_engine(a.model);
  const std::optional<Tokenizer> found = find_tokenizer(engine->checkpoint());
  const Tokenizer* tokenizer = found ? &*found : nullptr;
  if (tokenizer == nullptr && !a.stop.empty()) throw_input_error("{}: --stop needs a tokenizer", a.model.path);
  const GenerateOptions options{
      .sampling = sampling(a, engine->checkpoint()),
      .max_new_tokens = a.max_new_tokens,
      .stop_tokens = a.ignore_eos ? std::vector<int32_t>() : stop_tokens(engine->checkpoint()),
      .stop_texts = a.stop};
  const std::vector<int32_t> prompt = prompt_tokens(a, engine->checkpoint(), tokenizer);
  Session session(*engine);
  const GenerateResult result = generate(session, prompt, options, tokenizer, [&](std::string_view text) {
    if (a.json) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  report(a, result, tokenizer, engine->backend().measure_read_gbps());
}

}  // namespace

void add_run_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("run", "Answer a prompt, streaming, then one line on stderr about the speed");
  command->footer(
      "The chat template of the checkpoint is applied unless --raw is given. Sampling defaults to the checkpoint's\n"
      "generation_config.json, else to the best token each time (temperature 0).\n\n"
      "  nibble run models/SmolLM2 \"What is the capital of France?\"\n"
      "  nibble run model.gguf --raw --max-new-tokens 32 \"Once upon a time\"\n"
      "  nibble run tests/data/llama-bf16 --tokens 1,2,3 --json");
  auto a = std::make_shared<RunArguments>();
  add_model_arguments(*command, a->model);
  CLI::Option* prompt = command->add_option("PROMPT", a->prompt, "The prompt. Default: what comes on stdin");
  command->add_option("--tokens", a->tokens, "Token ids instead of a prompt, as in 1,2,3")->excludes(prompt);
  command->add_option("--system", a->system, "A system message before the prompt");
  command->add_flag("--raw", a->raw, "Take the prompt as it is, special tokens among it, without the chat template");
  command->add_option("--thinking", a->thinking, "Tell the chat template whether the model should think: on or off")
      ->check(CLI::IsMember({"on", "off"}));
  command->add_option("--max-new-tokens", a->max_new_tokens, "Tokens at the most")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 28))
      ->capture_default_str();
  command->add_option("--temperature", a->temperature, "0 takes the best token");
  command->add_option("--top-k", a->top_k, "Only the k best tokens; 0: all");
  command->add_option("--top-p", a->top_p, "Only the best tokens whose probabilities reach p");
  command->add_option("--min-p", a->min_p, "Only tokens with this share of the best one's probability");
  command->add_option("--repetition-penalty", a->repetition_penalty, "Above 1 makes tokens seen before less likely");
  command->add_option("--seed", a->seed, "Makes sampling repeat itself");
  command->add_option("--stop", a->stop, "A text that ends the answer; may be given several times")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--ignore-eos", a->ignore_eos, "Go on after the token that would end the answer");
  command->add_flag("--json", a->json, "One JSON object on stdout instead of text");
  command->callback([a, prompt] {
    a->has_prompt = prompt->count() > 0;
    run(*a);
  });
}

}  // namespace nibble
