#include "answer_arguments.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "engine/text.h"
#include "text/utf8.h"

namespace nibble {

void add_answer_arguments(CLI::App& command, AnswerArguments& a) {
  command.add_option("--system", a.system, "A system message before the conversation")
      ->check([](const std::string& text) { return is_utf8(text) ? "" : "is not UTF-8"; });
  command.add_option("--thinking", a.thinking, "Tell the chat template whether the model should think: on or off")
      ->check(CLI::IsMember({"on", "off"}));
  command.add_flag("--show-thinking", a.show_thinking, "Print what the model thinks before it answers");
  command.add_option("--reasoning-effort", a.reasoning_effort, "Tell the chat template: low, medium or high (gpt-oss)")
      ->check(CLI::IsMember({"low", "medium", "high"}));
  command.add_option("--max-new-tokens", a.max_new_tokens, "Tokens of an answer at the most, thinking included")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 28))
      ->capture_default_str();
  command.add_option("--temperature", a.temperature, "0 takes the best token");
  command.add_option("--top-k", a.top_k, "Only the k best tokens; 0: all");
  command.add_option("--top-p", a.top_p, "Only the best tokens whose probabilities reach p");
  command.add_option("--min-p", a.min_p, "Only tokens with this share of the best one's probability");
  command.add_option("--repetition-penalty", a.repetition_penalty, "Above 1 makes tokens seen before less likely");
  command.add_option("--seed", a.seed, "Makes sampling repeat itself")->check([](const std::string& text) {
    // CLI11 makes another number of what is negative or too large.
    const bool fits =
        text.find('-') == std::string::npos && (errno = 0, std::strtoull(text.c_str(), nullptr, 0), errno == 0);
    return fits ? "" : fmt::format("is {}, a number from 0 to {} expected", text, std::numeric_limits<uint64_t>::max());
  });
  command.add_option("--stop", a.stop, "A text that ends the answer; may be given several times")
      ->check(not_empty)
      ->take_all()
      ->allow_extra_args(false);
  command.add_flag("--ignore-eos", a.ignore_eos, "Go on after the token that would end the answer");
}

SamplingOptions sampling_options(const AnswerArguments& a, const Checkpoint& checkpoint) {
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

nlohmann::ordered_json template_variables(const AnswerArguments& a) {
  auto variables = nlohmann::ordered_json::object();
  if (!a.thinking.empty()) {
    variables["enable_thinking"] = a.thinking == "on";
    variables["thinking"] = a.thinking == "on";
  }
  if (!a.reasoning_effort.empty()) variables["reasoning_effort"] = a.reasoning_effort;
  return variables;
}

std::string speed_line(const GenerateResult& r) {
  return fmt::format("{} + {} tokens; prefill {:.1f} tok/s, decode {:.1f} tok/s; {} a token, {:.1f} GB/s",
                     r.prompt_tokens, r.tokens.size(), r.prefill_tok_s(), r.decode_tok_s(),
                     bytes_text(r.bytes_per_token), r.read_gbps());
}

nlohmann::ordered_json answer_json(const GenerateResult& r, const nlohmann::ordered_json& content,
                                   const std::string& thinking) {
  nlohmann::ordered_json json;
  json["tokens"] = r.tokens;
  json["text"] = content;
  if (!thinking.empty()) json["thinking"] = thinking;
  json["finish_reason"] = finish_reason_name(r.finish_reason);
  json["prefill_tok_s"] = r.prefill_tok_s();
  json["decode_tok_s"] = r.decode_tok_s();
  json["bytes_per_token"] = static_cast<int64_t>(r.bytes_per_token);
  json["read_gbps"] = r.read_gbps();
  return json;
}

void write_stdout(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

Dimmed dimmed(int file_descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  const bool plain = isatty(file_descriptor) != 1 || (no_color != nullptr && *no_color != '\0');
  return plain ? Dimmed{} : Dimmed{"\033[2m", "\033[0m"};
}

void AnswerPrinter::print_thinking(std::string_view text) {
  if (show_thinking_) {
    write_stdout(fmt::format("{}{}{}", dim_.on, text, dim_.off));
    has_thought_ = true;
  } else if (!has_note_ && stderr_is_terminal()) {
    const Dimmed dim = dimmed(STDERR_FILENO);
    fmt::print(stderr, "{}thinking …{}", dim.on, dim.off);
    has_note_ = true;
  }
}

void AnswerPrinter::print_content(std::string_view text) {
  finish();
  if (std::exchange(has_thought_, false)) write_stdout("\n\n");
  write_stdout(text);
}

void AnswerPrinter::finish() {
  if (std::exchange(has_note_, false)) fmt::print(stderr, "\r\033[K");
}

}  // namespace nibble
