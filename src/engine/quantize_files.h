// The files beside the weights of a folder that `quantize` writes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace nibble {

// config.json of the quantised model: the source's own, or one made from GGUF metadata, with the quantization_config of
// ModelOpt (nvfp4) or compressed-tensors (mxfp4). `kept` are the modules that stay as they are.
nlohmann::ordered_json quantized_config(const ModelFiles& files, FormatId format, const std::vector<std::string>& kept);

// Tokenizer, chat template and generation_config.json: copied from a folder, made from a GGUF file's metadata.
void write_text_files(const Checkpoint& checkpoint, const std::filesystem::path& folder);

}  // namespace nibble
