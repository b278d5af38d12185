#include "text/chat_template.h"

#include "base/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace nibble {

namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxSource = 1 << 20;  // bytes; the longest published template has 30 000

const ordered_json* reasoning_of(const ordered_json& message) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"})
    if (const auto found = message.find(name); found != message.end() && !found->is_null()) return &*found;
  return nullptr;
}

// The message with its reasoning under both names that templates read.
ordered_json with_reasoning(const ordered_json& message) {
  const ordered_json* reasoning = message.is_object() ? reasoning_of(message) : nullptr;
  if (reasoning == nullptr) return message;
  ordered_json named = {{"thinking", *reasoning}};
  for (const auto& [key, value] : message.items()) named[key] = value;
  named["reasoning_content"] = *reasoning;
  return named;
}

}  // namespace

struct ChatTemplate::State {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::string_view source) : state_(std::make_unique<State>()) {
  if (source.size() > kMaxSource) {
    throw_input_error("chat template: {} bytes, at most {} expected", source.size(), kMaxSource);
  }
  int line = 1;
  try {
    state_->block = jinja::parse_template(replace_invalid_utf8(source), line);
  } catch (const jinja::Fault& fault) {
    throw_input_error("chat template, line {}: {}", line, fault.message);
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const ChatMessages& chat) const {
  if (!chat.messages.is_array()) throw_input_error("messages: {}, a list expected", chat.messages.type_name());
  if (!chat.variables.is_null() && !chat.variables.is_object()) {
    throw_input_error("variables: {}, an object expected", chat.variables.type_name());
  }
  jinja::Interpreter interpreter;
  try {
    jinja::Dict variables;
    std::vector<jinja::Value> messages;
    for (const auto& message : chat.messages) {
      if (!message.is_object()) throw_input_error("messages: {} in the list, an object expected", message.type_name());
      messages.push_back(jinja::from_json(with_reasoning(message)));
    }
    variables.set("messages", std::move(messages));
    variables.set("tools", jinja::from_json(chat.tools));
    variables.set("documents", jinja::from_json(chat.documents));
    variables.set("add_generation_prompt", chat.add_generation_prompt);
    if (chat.variables.is_object())
      for (const auto& [key, value] : chat.variables.items()) variables.set(key, jinja::from_json(value));
    return interpreter.render(state_->block, variables);
  } catch (const jinja::Fault& fault) {
    throw_input_error("chat template, line {}: {}", interpreter.line(), fault.message);
  }
}

}  // namespace nibble
