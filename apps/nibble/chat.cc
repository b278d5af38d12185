// nibble chat: a conversation in the terminal, or with a script that pipes its messages.
#include "engine/chat.h"

#include <unistd.h>

#include <cstdio>

#include "answer_arguments.h"
#include "base/error.h"
#include "base/read_file.h"
#include "checkpoint/json_file.h"
#include "checkpoint/output_file.h"
#include "engine/text.h"
#include "line_reader.h"
#include "text/utf8.h"

namespace nibble {

namespace {

using nlohmann::ordered_json;

struct ChatArguments {
  ModelArguments model;
  AnswerArguments answer{.max_new_tokens = 32768};  // the context is what ends a long answer
  bool json = false;
};

constexpr std::string_view kHelp =
    "/reset          forget the conversation, but not the system message\n"
    "/drop           forget the oldest question and its answer\n"
    "/system TEXT    set the system message; without TEXT: none\n"
    "/save FILE      write the messages as JSON, into a file that is not there yet\n"
    "/load FILE      go on with the messages of such a file\n"
    "/help           this list\n"
    "/exit           leave, as Ctrl-D does\n"
    "Ctrl-C stops the answer; a second one leaves. A line that ends with \\ goes on in the next;\n"
    "\"\"\" begins a message of many lines and ends it. // begins a message that starts with a slash.\n";

class Chat {
 public:
  Chat(const ChatArguments& a, ModelFiles files)
      : a_(a),
        tokenizer_(need_tokenizer(*files.checkpoint)),
        options_(answer_options(a.answer, *files.checkpoint, tokenizer_)),
        engine_(load_engine(a.model, std::move(files))),
        session_(*engine_),
        conversation_(engine_->checkpoint(), tokenizer_, session_, template_variables(a.answer)) {
    conversation_.set_system(a.answer.system);
  }

  // Until /exit, the end of stdin, or a second Ctrl-C.
  void run();

 private:
  static Tokenizer need_tokenizer(const Checkpoint& checkpoint) {
    std::optional<Tokenizer> found = find_tokenizer(checkpoint);
    if (!found) throw_input_error("{}: has no tokenizer, without which there is no chat", checkpoint.path.string());
    return std::move(*found);
  }
  static GenerateOptions answer_options(const AnswerArguments& a, const Checkpoint& checkpoint,
                                        const Tokenizer& tokenizer) {
    check_chat_template(checkpoint);
    return {.sampling = sampling_options(a, checkpoint),
            .max_new_tokens = a.max_new_tokens,
            .stop_tokens = a.ignore_eos ? std::vector<int32_t>() : chat_stop_tokens(checkpoint, tokenizer),
            .stop_texts = a.stop};
  }

  // False for /exit.
  bool take(const std::string& message);
  bool command(std::string_view line);
  void answer(const std::string& message);
  void save(const std::string& file) const;
  void load(const std::string& file);

  const ChatArguments& a_;
  const bool is_person_ = isatty(STDIN_FILENO) == 1;
  // What can be wrong with the arguments shows before the model is loaded.
  Tokenizer tokenizer_;
  GenerateOptions options_;
  std::unique_ptr<Engine> engine_;
  Session session_;
  Conversation conversation_;
  bool was_interrupted_ = false;  // since the last message
};

void Chat::run() {
  // A script's Ctrl-C ends script and program.
  std::optional<Interrupts> interrupts;
  if (is_person_) options_.stop = &interrupts.emplace().raised();
  LineReader reader(is_person_ && stderr_is_terminal(), interrupts ? &*interrupts : nullptr);
  if (is_person_) fmt::print(stderr, "/help lists what else can be typed; Ctrl-D leaves\n");
  std::string message;
  while (true) {
    try {
      const LineReader::Got got = reader.read(message);
      if (interrupts) interrupts->clear();
      if (got == LineReader::Got::end) break;
      if (got == LineReader::Got::interrupted) {
        fmt::print(stderr, "\n");
        if (std::exchange(was_interrupted_, true)) return;
        fmt::print(stderr, "Ctrl-C again, Ctrl-D or /exit leaves\n");
        continue;
      }
      was_interrupted_ = false;
      if (!take(message)) return;
    } catch (const InputError& error) {
      if (!is_person_) throw;  // a script should not go on with half a conversation
      fmt::print(stderr, "{}\n", error.what());
    }
    if (interrupts) interrupts->clear();
  }
  if (is_person_ && stderr_is_terminal()) fmt::print(stderr, "\n");
}

bool Chat::take(const std::string& message) {
  expect_utf8(message, "the message");
  if (message.find_first_not_of(" \t\n") == std::string::npos) return true;
  if (message.starts_with("//")) {
    answer(message.substr(1));
    return true;
  }
  if (!message.starts_with('/')) {
    answer(message);
    return true;
  }
  try {
    return command(message);
  } catch (const RunError& error) {  // a full disk is no reason to lose the conversation
    if (!is_person_) throw;
    fmt::print(stderr, "{}\n", error.what());
    return true;
  }
}

bool Chat::command(std::string_view line) {
  const size_t space = std::min(line.find_first_of(" \t\n"), line.size());
  const std::string_view name = line.substr(0, space);
  const size_t first = std::min(line.find_first_not_of(" \t\n", space), line.size());
  const std::string argument(line.substr(first, line.find_last_not_of(" \t\n") + 1 - first));
  const auto without_argument = [&] {
    if (!argument.empty()) throw_input_error("{}: '{}' behind it, nothing expected", name, argument);
  };
  const auto with_file = [&] {
    if (argument.empty()) throw_input_error("{}: the name of a file expected behind it", name);
  };
  if (name == "/exit" || name == "/quit" || name == "/bye") {
    without_argument();
    return false;
  }
  if (name == "/help") {
    without_argument();
    fmt::print(stderr, "{}", kHelp);
  } else if (name == "/reset") {
    without_argument();
    conversation_.reset();
  } else if (name == "/drop") {
    without_argument();
    if (!conversation_.drop_oldest()) throw_input_error("/drop: there is nothing to forget");
  } else if (name == "/system") {
    conversation_.set_system(argument);
  } else if (name == "/save") {
    with_file();
    save(argument);
  } else if (name == "/load") {
    with_file();
    load(argument);
  } else {
    throw_input_error("{} is no command; /help lists them, and // begins a message that starts with a slash", name);
  }
  return true;
}

void Chat::answer(const std::string& message) {
  AnswerPrinter printer(a_.answer.show_thinking);
  const Reply reply = conversation_.answer(
      message, options_,
      [&](std::string_view text) {
        if (!a_.json) printer.print_thinking(text);
      },
      [&](std::string_view text) {
        if (!a_.json) printer.print_content(text);
      });
  printer.finish();
  const GenerateResult& r = reply.result;
  was_interrupted_ = r.finish_reason == FinishReason::interrupted;
  if (a_.json) {
    ordered_json json = answer_json(r, reply.content, reply.thinking);
    json["prompt_tokens"] = reply.reused_tokens + r.prompt_tokens;
    json["reused_tokens"] = reply.reused_tokens;
    json["context_tokens"] = session_.length();
    write_stdout(json.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
    return;
  }
  write_stdout("\n");
  const Dimmed dim = dimmed(STDERR_FILENO);
  if (was_interrupted_) fmt::print(stderr, "{}stopped{}\n", dim.on, dim.off);
  if (reply.content.empty() && !reply.thinking.empty() && !a_.answer.show_thinking)
    fmt::print(stderr, "the answer ended while the model was thinking: --show-thinking prints it\n");
  if (r.finish_reason == FinishReason::length && session_.length() == session_.max_len())
    fmt::print(stderr,
               "the answer ended because the context of {} positions is full; forget the oldest turn with /drop or all "
               "of them with /reset, or start with a larger --ctx\n",
               session_.max_len());
  fmt::print(stderr, "{}{}; {} reused, {} of {} positions{}\n", dim.on, speed_line(r), reply.reused_tokens,
             session_.length(), session_.max_len(), dim.off);
}

// Such a file is what `nibble template --messages` takes too.
void Chat::save(const std::string& file) const {
  if (is_there(file)) throw_input_error("/save: {} is there already, and is not overwritten; give another name", file);
  const ordered_json json = {{"messages", conversation_.messages()}};
  write_file(file, json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  fmt::print(stderr, "{}: {} messages\n", file, conversation_.messages().size());
}

void Chat::load(const std::string& file) {
  const ordered_json json = parse_written_json(read_file(file), file);
  if (!json.is_object() || !json.contains("messages"))
    throw_input_error("/load: {}: a JSON object with a list \"messages\" expected, as /save writes it", file);
  conversation_.set_messages(json.at("messages"));
  fmt::print(stderr, "{}: {} messages\n", file, conversation_.messages().size());
}

}  // namespace

void add_chat_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("chat", "Talk with a model in the terminal, or pipe messages in, one a line");
  command->footer(
      std::string("Sampling defaults to the checkpoint's generation_config.json, else to the best token each time\n"
                  "(temperature 0). What is typed:\n\n") +
      std::string(kHelp) +
      "\nWhen messages come from a pipe, an error ends the conversation with exit code 2.\n\n"
      "  nibble chat models/SmolLM2 --system \"Be brief\"\n"
      "  printf 'Hi\\nHow are you?\\n' | nibble chat model.gguf --json");
  auto a = std::make_shared<ChatArguments>();
  add_model_arguments(*command, a->model);
  add_answer_arguments(*command, a->answer);
  command->add_flag("--json", a->json, "Instead of text, a JSON object for each answer, on a line of its own");
  command->callback([a] { Chat(*a, open_model(a->model.path)).run(); });
}

}  // namespace nibble
