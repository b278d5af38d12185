// nibble run: a prompt in, streamed text out, one line about the speed.
#include <unistd.h>

#include <cstdio>

#include "answer_arguments.h"
#include "base/error.h"
#include "engine/chat.h"
#include "engine/text.h"
#include "text/utf8.h"

namespace nibble {

namespace {

struct RunArguments {
  ModelArguments model;
  AnswerArguments answer;
  std::string prompt, tokens;
  bool has_prompt = false, raw = false, json = false;
};

// Throws InputError if an option is given that only a chat template could follow. `why` there is none.
void expect_no_template_options(const AnswerArguments& a, std::string_view why) {
  const auto refuse = [&](bool is_given, std::string_view option) {
    if (is_given) throw_input_error("{} is for chat templates, and {}", option, why);
  };
  refuse(!a.system.empty(), "--system");
  refuse(!a.thinking.empty(), "--thinking");
  refuse(!a.reasoning_effort.empty(), "--reasoning-effort");
  refuse(a.show_thinking, "--show-thinking");
}

// The prompt as the chat template renders it, or as it is: then its text is empty, and it has no thinking.
ChatPrompt prompt_of(const RunArguments& a, const Checkpoint& checkpoint, const Tokenizer* tokenizer) {
  if (!a.tokens.empty()) {
    expect_no_template_options(a.answer, "--tokens are taken as they are");
    return {.text = {}, .tokens = parse_tokens(a.tokens), .thinking = {}};
  }
  if (tokenizer == nullptr) throw_input_error("{}: has no tokenizer; give the prompt as --tokens 1,2,3", a.model.path);
  if (!a.has_prompt && isatty(STDIN_FILENO) == 1)
    throw_input_error("no prompt: give one as the second argument, on stdin, or as --tokens 1,2,3");
  const std::string prompt = a.has_prompt ? a.prompt : read_stdin();
  if (!a.has_prompt && prompt.empty())
    throw_input_error("no prompt: none is given, and stdin is empty; a second argument of \"\" asks nothing");
  expect_utf8(prompt, "the prompt");
  if (a.raw || !find_chat_template(checkpoint)) {
    expect_no_template_options(a.answer, a.raw ? "with --raw none is applied" : "this checkpoint has none");
    return {.text = {},
            .tokens = tokenizer->encode(prompt, {.add_bos = tokenizer->adds_bos(), .parse_special = a.raw}),
            .thinking = {}};
  }

  auto messages = nlohmann::ordered_json::array();
  if (!a.answer.system.empty()) messages.push_back({{"role", "system"}, {"content", a.answer.system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return chat_prompt(checkpoint, *tokenizer, messages, template_variables(a.answer));
}

void report(const RunArguments& a, const GenerateResult& r, const Tokenizer* tokenizer,
            const ThinkingSplitter& splitter, double roof_gbps) {
  const double share = roof_gbps > 0 ? r.read_gbps() / roof_gbps : 0;
  if (a.json) {
    auto json =
        answer_json(r, tokenizer != nullptr ? nlohmann::ordered_json(splitter.content()) : nlohmann::ordered_json(),
                    splitter.thinking());
    json["roof_gbps"] = roof_gbps;
    json["roof_share"] = share;
    print_json(json);
    return;
  }
  if (tokenizer == nullptr) fmt::print("{}", fmt::join(r.tokens, ","));
  write_stdout("\n");
  if (splitter.content().empty() && !splitter.thinking().empty() && !a.answer.show_thinking)
    fmt::print(stderr, "the answer ended while the model was thinking: --show-thinking prints it\n");
  fmt::print(stderr, "{}, {:.0f} % of the measured roof ({:.1f} GB/s)\n", speed_line(r), 100 * share, roof_gbps);
  if (const std::string note = cache_note(r.bytes_per_token); share > 1 && !note.empty())
    fmt::print(stderr, "({})\n", note);
}

void run(const RunArguments& a) {
  ModelFiles files = open_model(a.model.path);
  const std::shared_ptr<const Checkpoint> checkpoint = files.checkpoint;
  const std::optional<Tokenizer> found = find_tokenizer(*checkpoint);
  const Tokenizer* tokenizer = found ? &*found : nullptr;
  if (tokenizer == nullptr && !a.answer.stop.empty()) throw_input_error("{}: --stop needs a tokenizer", a.model.path);
  const ChatPrompt prompt = prompt_of(a, *checkpoint, tokenizer);
  check_prompt(prompt.tokens, *files.model, a.model);
  GenerateOptions options{.sampling = sampling_options(a.answer, *checkpoint),
                          .max_new_tokens = a.answer.max_new_tokens,
                          .stop_texts = a.answer.stop};
  if (!a.answer.ignore_eos)
    options.stop_tokens = prompt.text.empty() ? stop_tokens(*checkpoint) : chat_stop_tokens(*checkpoint, *tokenizer);
  const auto engine = load_engine(a.model, std::move(files));
  Session session(*engine);
  AnswerPrinter printer(a.answer.show_thinking);
  ThinkingSplitter splitter(
      prompt.thinking, prompt.text,
      [&](std::string_view text) {
        if (!a.json) printer.print_thinking(text);
      },
      [&](std::string_view text) {
        if (!a.json) printer.print_content(text);
      });
  const GenerateResult result =
      generate(session, prompt.tokens, options, tokenizer, [&](std::string_view text) { splitter.push(text); });
  splitter.finish();
  printer.finish();
  report(a, result, tokenizer, splitter, engine->backend().measure_read_gbps());
}

}  // namespace

void add_run_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("run", "Answer a prompt, streaming, then one line on stderr about the speed");
  command->footer(
      "The chat template of the checkpoint is applied unless --raw is given. Sampling defaults to the checkpoint's\n"
      "generation_config.json, else to the best token each time (temperature 0).\n\n"
      "  nibble run models/SmolLM2 \"What is the capital of France?\"\n"
      "  nibble run model.gguf --raw --max-new-tokens 32 \"Once upon a time\"\n"
      "  nibble run tests/data/models/llama-bf16 --tokens 1,2,3 --json");
  auto a = std::make_shared<RunArguments>();
  add_model_arguments(*command, a->model);
  a->model.measures_roof = true;
  CLI::Option* prompt = command->add_option("PROMPT", a->prompt, "The prompt. Default: what comes on stdin");
  command->add_option("--tokens", a->tokens, "Token ids instead of a prompt, as in 1,2,3")
      ->check(not_empty)
      ->excludes(prompt);
  command->add_flag("--raw", a->raw, "Take the prompt as it is, special tokens among it, without the chat template");
  add_answer_arguments(*command, a->answer);
  command->add_flag("--json", a->json, "One JSON object on stdout instead of text");
  command->callback([a, prompt] {
    a->has_prompt = prompt->count() > 0;
    run(*a);
  });
}

}  // namespace nibble
