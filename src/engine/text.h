// The text side of a checkpoint: its tokenizer, its chat template, and the tokens that end an answer.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "engine/sampler.h"
#include "text/tokenizer.h"

namespace nibble {

// The tokenizer of a model folder (tokenizer.json, or else tokenizer.model), of one of these files, or of a .gguf file;
// the folder may hold nothing but a tokenizer. Throws InputError if there is none.
Tokenizer load_tokenizer(const std::filesystem::path& path);

// The same for an open checkpoint, or none if it has no tokenizer.
std::optional<Tokenizer> find_tokenizer(const Checkpoint& checkpoint);

// Its chat template's source, or none.
std::optional<std::string> find_chat_template(const Checkpoint& checkpoint);

// The tokens after which an answer ends: those of generation_config.json, else of config.json; or of the GGUF metadata.
std::vector<int32_t> stop_tokens(const Checkpoint& checkpoint);

// How the checkpoint wants to be sampled; temperature 0 if it does not say.
SamplingOptions default_sampling(const Checkpoint& checkpoint);

// Values that chat templates expect besides the messages: bos_token, eos_token, ….
nlohmann::ordered_json template_variables(const Tokenizer& tokenizer);

}  // namespace nibble
