// The options that every command has which lets a model answer (run, chat): sampling, thinking, and the report.
#pragma once

#include <unistd.h>

#include "commands.h"
#include "engine/generate.h"
#include "engine/sampler.h"

namespace nibble {

struct AnswerArguments {
  std::string system, thinking, reasoning_effort;
  bool show_thinking = false, ignore_eos = false;
  int64_t max_new_tokens = 512;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
};
void add_answer_arguments(CLI::App& command, AnswerArguments& arguments);

// The checkpoint's own way of sampling, changed by what the arguments say.
SamplingOptions sampling_options(const AnswerArguments& arguments, const Checkpoint& checkpoint);

// What the arguments tell a chat template: enable_thinking (and thinking, as DeepSeek's call it), reasoning_effort.
nlohmann::ordered_json template_variables(const AnswerArguments& arguments);

// Speeds and bytes of an answer, in one line without its end.
std::string speed_line(const GenerateResult& result);

// tokens, text, finish_reason, prefill_tok_s, decode_tok_s, bytes_per_token, read_gbps; thinking if there was some.
// `content` is null without a tokenizer.
nlohmann::ordered_json answer_json(const GenerateResult& result, const nlohmann::ordered_json& content,
                                   const std::string& thinking);

// Writes at once, so that answers stream.
void write_stdout(std::string_view text);

// Escape sequences for dimmed text, empty where colours are not wanted: beside a terminal, or with NO_COLOR.
struct Dimmed {
  std::string_view on, off;
};
Dimmed dimmed(int file_descriptor);

// Prints an answer as it comes: content as it is; thinking dimmed and apart from it, or, if it is not to be shown, a
// note on a terminal's stderr that goes when the answer begins.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool show_thinking) : show_thinking_(show_thinking), dim_(dimmed(STDOUT_FILENO)) {}

  void print_thinking(std::string_view text);
  void print_content(std::string_view text);
  void finish();  // takes the note away

 private:
  bool show_thinking_, has_thought_ = false, has_note_ = false;
  Dimmed dim_;
};

}  // namespace nibble
