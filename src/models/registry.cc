// The architectures, by the names that config.json and GGUF metadata give them.
#include <array>

#include <fmt/ranges.h>

#include "base/error.h"
#include "models/architectures.h"

namespace nibble {

namespace {

struct Architecture {
  std::string_view hf, gguf;  // no GGUF name: its files bear another architecture's, whose maker knows
  std::unique_ptr<Model> (*make)(const Checkpoint&, WeightSource&);
};

constexpr std::array kArchitectures = {
    Architecture{"deepseek_v3", "deepseek2", make_deepseek_v3},
    Architecture{"glm4_moe", "glm4moe", make_glm4_moe},
    Architecture{"glm4_moe_lite", "", make_glm4_moe_lite},
    Architecture{"gpt_oss", "gpt-oss", make_gpt_oss},
    Architecture{"llama", "llama", make_llama},
    Architecture{"mixtral", "", make_mixtral},
    Architecture{"qwen3", "qwen3", make_qwen3},
    Architecture{"qwen3_moe", "qwen3moe", make_qwen3_moe},
};

// Throws InputError, listing those that there are, for one that is not.
const Architecture& architecture_of(const Checkpoint& checkpoint) {
  const std::string name = architecture_name(checkpoint);
  const auto name_of = [&](const Architecture& a) { return checkpoint.container == Container::gguf ? a.gguf : a.hf; };
  std::vector<std::string_view> known;
  for (const Architecture& a : kArchitectures) {
    if (name_of(a).empty()) continue;
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
