// A model from files as a user's would be: written to a folder, opened, loaded, run.
#pragma once

#include <filesystem>

#include "fuzz/files.h"

namespace nibble {

// Makes `folder` anew with these files in it.
void write_files(const std::filesystem::path& folder, const Files& files);

// Opens the model, loads it into each backend and runs one step of two tokens; reads its tokenizer, its chat template
// and its sampling. Throws what any of them throws.
void load_and_step(const std::filesystem::path& model);

}  // namespace nibble
