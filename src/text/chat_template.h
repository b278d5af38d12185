// Chat templates: Jinja, set up as the transformers library sets it up, so that a checkpoint's own template gives the
// prompt that its model was trained on.
//
// On top of Jinja's own there are raise_exception(message), strftime_now(format), tojson without HTML escapes, break
// and continue, and {% generation %} blocks, which only render their body. Templates come with checkpoints and are not
// trusted: they reach nothing but their input and the clock, and steps, depth and output are bounded.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"

namespace nibble {

struct ChatMessages {
  nlohmann::ordered_json messages;  // a list of objects
  nlohmann::ordered_json tools;     // a list of JSON schemas; null if there are none
  // An object or null: bos_token, enable_thinking and whatever else the template reads.
  nlohmann::ordered_json variables;
  bool add_generation_prompt = true;
  nlohmann::ordered_json documents = nullptr;  // a list of objects with title and text; null if there are none
};

class ChatTemplate {
 public:
  // Throws InputError with the line if `source` is not a valid template.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The prompt. A message's reasoning may be called reasoning_content, thinking or reasoning: templates that read one
  // of the first two find it. Throws InputError with the line and the template's own message if it raises an exception,
  // and with the line and the reason if it fails. Many threads may render at once.
  std::string render(const ChatMessages& chat) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
