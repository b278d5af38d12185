// Prompts of more tokens than the golden ones on Metal, which go through the matrices in tiles.
#include "goldens.h"

namespace nibble {
namespace {

TEST(MetalPrompt, ManyTokensGiveWhatTheReferenceGives) {
  // Full attention, experts of each kind, latents.
  for (const char* name : {"llama-bf16", "gpt_oss-gguf-mxfp4", "qwen3_moe-ct-nvfp4", "deepseek_v3-groups"}) {
    const Golden golden = read_golden(kModels / name);
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < 100; i++) tokens.push_back(golden.prompt[i * i % golden.prompt.size()]);
    Engine metal = open_engine(golden.model, "metal", 2), reference = open_engine(golden.model, "reference");
    const auto vocab_size = static_cast<size_t>(metal.model().config.vocab_size);
    const std::vector<float> expected = forward(reference, tokens, 100);
    EXPECT_LT(mean_kl(expected, forward(metal, tokens, 100), vocab_size), 3e-5) << name;
  }
}

}  // namespace
}  // namespace nibble
