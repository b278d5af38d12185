// A whole model on the route "tiles for every M": bit for bit the logits of the chosen routes, one step after the other.
#include "goldens.h"

namespace nibble {
namespace {

// The logits after each token of the prompt, fed one by one.
std::vector<float> logits_on(Engine& engine, LinearRoute route, std::span<const int32_t> tokens) {
  Step step = engine.model().forward(1, LogitsFor::last_token);
  step.linear_route = route;
  const auto compiled = engine.compile(step);
  const std::vector<Phase> phases = compiled->phases();
  EXPECT_EQ(std::ranges::any_of(phases, [](const Phase& p) { return p.name.ends_with("(tiles of 64)"); }),
            route == LinearRoute::always_tiles);
  const auto cache = engine.backend().make_kv_cache(engine.kv_cache_shape());
  const auto vocab_size = static_cast<size_t>(engine.model().config.vocab_size);
  std::vector<float> logits(tokens.size() * vocab_size);
  for (size_t i = 0; i < tokens.size(); i++) {
    const auto pos = static_cast<int32_t>(i), sequence = 0;
    compiled->run({tokens.subspan(i, 1), {&pos, 1}, {&sequence, 1}}, *cache,
                  std::span(logits).subspan(i * vocab_size, vocab_size));
  }
  return logits;
}

TEST(LinearRoute, TilesGiveTheSameBits) {
  for (const char* name : {"llama-modelopt-nvfp4", "qwen3-gguf-mxfp4", "mixtral-gguf-mxfp4", "deepseek_v3-groups",
                           "glm4_moe-all-experts"}) {
    SCOPED_TRACE(name);
    const Golden golden = read_golden(kModels / name);
    Engine engine = open_engine(golden.model, "cpu", 2);
    const std::vector<float> chosen = logits_on(engine, LinearRoute::by_tokens, golden.prompt);
    const std::vector<float> tiles = logits_on(engine, LinearRoute::always_tiles, golden.prompt);
    EXPECT_TRUE(std::memcmp(tiles.data(), chosen.data(), chosen.size() * sizeof(float)) == 0);
    EXPECT_EQ(chosen, forward(engine, golden.prompt, 1));
  }
}

}  // namespace
}  // namespace nibble
