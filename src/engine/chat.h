// From messages to the tokens of a prompt, and conversations: messages that grow, and a cache that grows with them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "engine/generate.h"
#include "engine/reasoning.h"
#include "engine/session.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble {

// A prompt that a chat template has rendered.
struct ChatPrompt {
  std::string text;
  std::vector<int32_t> tokens;
  ThinkingStyle thinking;
};

// Throws InputError if the checkpoint has no chat template, or one that is not valid.
void check_chat_template(const Checkpoint& checkpoint);

// The messages as the checkpoint's chat template renders them, ready for the answer. `variables` are added to those
// that every template gets (bos_token, eos_token). Throws InputError if the checkpoint has no chat template, or if it
// refuses the messages.
ChatPrompt chat_prompt(const Checkpoint& checkpoint, const Tokenizer& tokenizer, const nlohmann::ordered_json& messages,
                       const nlohmann::ordered_json& variables);

// The tokens after which an answer in a conversation ends: stop_tokens, and the special token with which the chat
// template ends the assistant's turn, or begins the next one if it ends none (GLM's <|user|>).
std::vector<int32_t> chat_stop_tokens(const Checkpoint& checkpoint, const Tokenizer& tokenizer);

struct Reply {
  GenerateResult result;  // result.text has the thinking too, as the model wrote it
  std::string content, thinking;
  int64_t reused_tokens = 0;  // of the prompt, whose keys and values were in the cache
};

// One conversation on one session. The cache keeps what the prompts have in common; only the rest is put through.
class Conversation {
 public:
  // `session` and `tokenizer` outlive the conversation. Throws as check_chat_template does.
  Conversation(const Checkpoint& checkpoint, const Tokenizer& tokenizer, Session& session,
               nlohmann::ordered_json variables);

  // The messages, as templates have them: {"role", "content"}, of the assistant also "reasoning_content" if it thought.
  const nlohmann::ordered_json& messages() const { return messages_; }
  void set_messages(nlohmann::ordered_json messages);

  // The system message, the first one; empty: none.
  void set_system(const std::string& text);
  // Forgets all but the system message.
  void reset();
  // Forgets the oldest question and its answer. False if there is none.
  bool drop_oldest();

  // Adds the user's message and the answer to it. options.stop_tokens are those of chat_stop_tokens. An answer that was
  // interrupted stays as far as it came. Throws InputError, and leaves the messages as they were, if the template
  // refuses them or the prompt does not fit into the context.
  Reply answer(const std::string& message, const GenerateOptions& options, const ThinkingSplitter::OnText& on_thinking,
               const ThinkingSplitter::OnText& on_content);

 private:
  ChatPrompt fitting_prompt() const;

  const Checkpoint& checkpoint_;
  const Tokenizer& tokenizer_;
  Session& session_;
  nlohmann::ordered_json variables_;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
};

}  // namespace nibble
