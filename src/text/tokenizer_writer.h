// Writes what the readers read: a tokenizer.json that the Hugging Face tokenizers library loads, and the part of
// tokenizer_config.json that names the tokens with a role.
#pragma once

#include "base/json.h"
#include "text/tokenizer_spec.h"

namespace nibble {

nlohmann::json write_tokenizer_json(const TokenizerSpec& spec);
nlohmann::json write_tokenizer_config(const TokenizerSpec& spec);

}  // namespace nibble
