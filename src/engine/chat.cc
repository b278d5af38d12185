#include "engine/chat.h"

#include "base/error.h"
#include "engine/text.h"
#include "text/chat_template.h"

namespace nibble {

std::vector<int32_t> chat_prompt(const Checkpoint& checkpoint, const Tokenizer& tokenizer,
                                 const nlohmann::ordered_json& messages, const nlohmann::ordered_json& variables) {
  const std::optional<std::string> source = find_chat_template(checkpoint);
  if (!source)
    throw_input_error("{}: has no chat template; give a text to continue instead (--raw)", checkpoint.path.string());
  ChatMessages chat{.messages = messages, .variables = template_variables(tokenizer), .add_generation_prompt = true};
  if (variables.is_object()) chat.variables.update(variables);
  // The template writes the beginning-of-text token itself.
  return tokenizer.encode(ChatTemplate(*source).render(chat), {.parse_special = true});
}

}  // namespace nibble
