// What is fuzzed: functions that take any bytes. Each does with them what a user's file would undergo, and lets only
// InputError end it; everything else (another exception, a sanitizer's report, a failed expectation) is a fault.
// The same functions run under libFuzzer (fuzz_main.cc) and, over the checked-in inputs, as a test (corpus_test.cc).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "fuzz/damage.h"

namespace nibble {

using Bytes = std::span<const uint8_t>;

void fuzz_safetensors(Bytes bytes);  // one file, and what every dialect makes of its tensors
void fuzz_gguf(Bytes bytes);         // one file, and everything that is read from GGUF
void fuzz_config(Bytes bytes);     // config.json, hf_quant_config.json, generation_config.json; or metadata.json (GGUF)
void fuzz_tokenizer(Bytes bytes);  // tokenizer.json, tokenizer_config.json; or metadata.json (GGUF); and text
void fuzz_template(Bytes bytes);   // template, and messages.json with what it is rendered with
void fuzz_load(Bytes bytes);       // a folder or a model.gguf: opened, loaded into both backends, one step

struct FuzzTarget {
  std::string_view name;
  void (*run)(Bytes);
  std::string (*damage)(std::string& input, Random& random);  // the structured mutator; null: libFuzzer's own will do
};

std::span<const FuzzTarget> fuzz_targets();

// Aborts with `what` if `holds` is not true: an expectation that fuzzing tries to break.
void expect(bool holds, std::string_view what);

// Runs `work`. Returns the message if it throws InputError, and expects that it begins with `name` and says more.
template <class Work>
std::string input_error_of(std::string_view name, Work&& work) {
  try {
    work();
  } catch (const InputError& error) {
    const std::string_view message = error.what();
    expect(message.starts_with(name) && message.size() > name.size() + 4, message);
    return std::string(message);
  }
  return {};
}

}  // namespace nibble
