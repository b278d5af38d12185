// The split patterns that GGUF files name in tokenizer.ggml.pre.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/pre_tokenizer.h"

namespace nibble {

struct GgufPreTokenizer {
  std::vector<const char*> names;
  std::vector<SplitStep> steps;
  bool ignore_merges = false;
  bool nfc = false;
  bool adds_bos = false;  // where the file does not say
};

// All that are known. A new one is one more entry.
std::span<const GgufPreTokenizer> gguf_pre_tokenizers();

// Throws InputError with the known names for an unknown one.
const GgufPreTokenizer& find_gguf_pre_tokenizer(std::string_view name);

}  // namespace nibble
