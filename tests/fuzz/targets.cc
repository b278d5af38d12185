#include "fuzz/targets.h"

#include <cstdio>
#include <cstdlib>

namespace nibble {

namespace {

std::string damage_folder(std::string& input, Random& random) {
  Files files = split_files({reinterpret_cast<const uint8_t*>(input.data()), input.size()});
  std::string what = damage_files(files, random);
  input = join_files(files);
  return what;
}

constexpr FuzzTarget kTargets[] = {
    {"safetensors", fuzz_safetensors, damage_safetensors},
    {"gguf", fuzz_gguf, damage_gguf},
    {"config", fuzz_config, damage_folder},
    {"tokenizer", fuzz_tokenizer, damage_folder},
    {"template", fuzz_template, nullptr},
    {"load", fuzz_load, damage_folder},
};

}  // namespace

std::span<const FuzzTarget> fuzz_targets() { return kTargets; }

void expect(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "expectation failed: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

}  // namespace nibble
