// The models that lie in folders known to hold some, and the names by which commands take them.
//
// Looked through, in this order: .cache/models here; the folders of NIBBLE_MODELS (":" between them);
// ~/.cache/nibble/models; the Hugging Face hub's cache (HF_HUB_CACHE, or HF_HOME/hub, or ~/.cache/huggingface/hub).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// A folder with a config.json, or a .gguf file; of a split file the first part.
struct FoundModel {
  std::string name;  // "SmolLM2-135M-Instruct-NVFP4", "ORG/NAME", "ORG/NAME/FILE" of a .gguf file in it
  std::filesystem::path path;
};

std::vector<std::filesystem::path> model_folders();

// All of them. Folders that cannot be read hold none.
std::vector<FoundModel> find_models();

// The path if there is such a file or folder, else that of the one model of that name: a whole name, or the end of one
// from a slash on. Throws InputError, listing near names, if there is none or more than one.
std::filesystem::path model_path(const std::string& name);

}  // namespace nibble
