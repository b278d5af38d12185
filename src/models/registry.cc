// The architectures, by the names that config.json and GGUF metadata give them.
#include <array>

#include <fmt/ranges.h>

#include "base/error.h"
#include "models/architectures.h"

namespace nibble {

namespace {

struct Architecture {
  std::string_view hf, gguf;
  std::unique_ptr<Model> (*make)(const Checkpoint&, WeightSource&);
};

constexpr std::array kArchitectures = {
    Architecture{"llama", "llama", make_llama},
    Architecture{"qwen3", "qwen3", make_qwen3},
};

// Throws InputError, listing those that there are, for one that is not.
const Architecture& architecture_of(const Checkpoint& checkpoint) {
  const std::string name = architecture_name(checkpoint);
  const auto name_of = [&](const Architecture& a) { return checkpoint.container == Container::gguf ? a.gguf : a.hf; };
  std::vector<std::string_view> known;
  for (const Architecture& a : kArchitectures) {
    if (name_of(a) == name) return a;
    known.push_back(name_of(a));
  }
  throw_input_error("{}: the architecture is {}; implemented are: {}", checkpoint.path.string(), name,
                    fmt::join(known, ", "));
}

}  // namespace

void check_architecture(const Checkpoint& checkpoint) { architecture_of(checkpoint); }

std::unique_ptr<Model> make_model(const Checkpoint& checkpoint, WeightSource& source) {
  return architecture_of(checkpoint).make(checkpoint, source);
}

}  // namespace nibble
