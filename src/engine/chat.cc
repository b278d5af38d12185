#include "engine/chat.h"

#include <algorithm>

#include "base/error.h"
#include "base/naming.h"
#include "engine/text.h"
#include "text/utf8.h"

namespace nibble {

namespace {

using nlohmann::ordered_json;

std::string template_source(const Checkpoint& checkpoint) {
  std::optional<std::string> source = find_chat_template(checkpoint);
  if (!source)
    throw_input_error("{}: has no chat template; give a text to continue instead (nibble run --raw)",
                      checkpoint.path.string());
  return std::move(*source);
}

ordered_json message_of(const char* role, std::string_view content) {
  return {{"role", role}, {"content", replace_invalid_utf8(content)}};
}

bool is_system(const ordered_json& message) { return message.at("role") == "system"; }

// What a template puts behind the assistant's last words in these messages; empty if it refuses them.
std::string behind_answer(const ChatTemplate& chat_template, const Tokenizer& tokenizer, ordered_json messages) {
  constexpr std::string_view kAnswer = "the answer ends here";
  messages.at(1).at("content") = kAnswer;
  try {
    const std::string text = chat_template.render({.messages = std::move(messages),
                                                   .tools = nullptr,
                                                   .variables = template_variables(tokenizer),
                                                   .add_generation_prompt = false});
    const size_t at = text.rfind(kAnswer);
    if (at == std::string::npos) return {};
    const size_t first = text.find_first_not_of(" \t\r\n", at + kAnswer.size());
    return first == std::string::npos ? std::string() : text.substr(first);
  } catch (const InputError&) {
    return {};
  }
}

}  // namespace

void check_chat_template(const Checkpoint& checkpoint) {
  naming(checkpoint.path.string(), [&] { ChatTemplate(template_source(checkpoint)); });
}

ChatPrompt chat_prompt(const Checkpoint& checkpoint, const Tokenizer& tokenizer, const ordered_json& messages,
                       const ordered_json& variables) {
  const std::string source = template_source(checkpoint);
  ChatMessages chat{.messages = messages, .variables = template_variables(tokenizer), .add_generation_prompt = true};
  if (variables.is_object()) chat.variables.update(variables);
  std::string text = naming(checkpoint.path.string(), [&] { return ChatTemplate(source).render(chat); });
  // The template writes the beginning-of-text token itself.
  std::vector<int32_t> tokens = tokenizer.encode(text, {.parse_special = true});
  return {std::move(text), std::move(tokens), ThinkingStyle::of_template(source)};
}

std::vector<int32_t> chat_stop_tokens(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = stop_tokens(checkpoint);
  const std::optional<std::string> source = find_chat_template(checkpoint);
  if (!source) return ids;
  const ChatTemplate chat_template(*source);
  ordered_json messages = {message_of("user", "a"), message_of("assistant", "b")};
  std::string behind = behind_answer(chat_template, tokenizer, messages);
  if (behind.empty()) {
    messages.push_back(message_of("user", "c"));
    behind = behind_answer(chat_template, tokenizer, messages);
  }
  if (behind.empty()) return ids;
  const std::vector<int32_t> tokens = tokenizer.encode(behind, {.parse_special = true});
  if (!tokens.empty() && tokenizer.is_special(tokens[0]) && std::ranges::find(ids, tokens[0]) == ids.end())
    ids.push_back(tokens[0]);
  return ids;
}

Conversation::Conversation(const Checkpoint& checkpoint, const Tokenizer& tokenizer, Session& session,
                           ordered_json variables)
    : checkpoint_(checkpoint), tokenizer_(tokenizer), session_(session), variables_(std::move(variables)) {
  check_chat_template(checkpoint);
}

void Conversation::set_messages(ordered_json messages) {
  if (!messages.is_array()) throw_input_error("messages: {}, a list expected", messages.type_name());
  for (const ordered_json& message : messages) {
    const bool is_message = message.is_object() && message.contains("role") && message.at("role").is_string() &&
                            message.contains("content");
    if (!is_message)
      throw_input_error(R"(messages: {}; objects with "role" and "content" expected)",
                        message.dump(-1, ' ', false, ordered_json::error_handler_t::replace).substr(0, 200));
  }
  messages_ = std::move(messages);
}

void Conversation::set_system(const std::string& text) {
  if (!messages_.empty() && is_system(messages_[0])) messages_.erase(0);
  if (!text.empty()) messages_.insert(messages_.begin(), message_of("system", text));
}

void Conversation::reset() {
  while (!messages_.empty() && !is_system(messages_.back())) messages_.erase(messages_.size() - 1);
}

bool Conversation::drop_oldest() {
  const size_t first = !messages_.empty() && is_system(messages_[0]) ? 1 : 0;
  if (messages_.size() <= first) return false;
  do messages_.erase(first);
  while (messages_.size() > first && messages_[first].at("role") != "user");
  return true;
}

ChatPrompt Conversation::fitting_prompt() const {
  ChatPrompt prompt = chat_prompt(checkpoint_, tokenizer_, messages_, variables_);
  const auto count = static_cast<int64_t>(prompt.tokens.size());
  if (count >= session_.max_len())
    throw_input_error(
        "the conversation has {} tokens and the context {} positions, so there is no room for an answer; forget the "
        "oldest turn with /drop or all of them with /reset, or start with a larger --ctx",
        count, session_.max_len());
  return prompt;
}

Reply Conversation::answer(const std::string& message, const GenerateOptions& options,
                           const ThinkingSplitter::OnText& on_thinking, const ThinkingSplitter::OnText& on_content) {
  messages_.push_back(message_of("user", message));
  try {
    const ChatPrompt prompt = fitting_prompt();
    ThinkingSplitter splitter(prompt.thinking, prompt.text, on_thinking, on_content);
    Reply reply;
    reply.reused_tokens = session_.keep_prefix(prompt.tokens);
    reply.result = generate(session_, std::span(prompt.tokens).subspan(static_cast<size_t>(reply.reused_tokens)),
                            options, &tokenizer_, [&](std::string_view text) { splitter.push(text); });
    splitter.finish();
    reply.content = splitter.content();
    reply.thinking = splitter.thinking();
    ordered_json answer = message_of("assistant", reply.content);
    if (!reply.thinking.empty()) answer["reasoning_content"] = reply.thinking;
    messages_.push_back(std::move(answer));
    return reply;
  } catch (...) {
    messages_.erase(messages_.size() - 1);
    throw;
  }
}

}  // namespace nibble
