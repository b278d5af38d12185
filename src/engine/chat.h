// From messages to the tokens of a prompt.
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "text/tokenizer.h"

namespace nibble {

// The messages as the checkpoint's chat template renders them, ready for the answer. `variables` are added to those
// that every template gets (bos_token, eos_token). Throws InputError if the checkpoint has no chat template, or if it
// refuses the messages.
std::vector<int32_t> chat_prompt(const Checkpoint& checkpoint, const Tokenizer& tokenizer,
                                 const nlohmann::ordered_json& messages, const nlohmann::ordered_json& variables);

}  // namespace nibble
