#include "weights/module_pattern.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "weights/memory_checkpoint.h"

namespace nibble {
namespace {

bool matches(std::string_view pattern, std::string_view module) {
  return ModulePattern(pattern, "config.json").matches(module);
}

TEST(ModulePattern, AStarStandsForAnythingAndNothingElseIsSpecial) {
  EXPECT_TRUE(matches("lm_head", "lm_head"));
  EXPECT_FALSE(matches("lm_head", "lm_head.x"));
  EXPECT_FALSE(matches("head", "lm_head"));
  EXPECT_TRUE(matches("model.layers.1.*", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(matches("model.layers.1.*", "model.layers.11.mlp"));
  EXPECT_FALSE(matches("model.layers.1", "modelxlayersx1"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("a\\E(*", "a\\E(b"));
}

TEST(ModulePattern, ARegularExpressionMatchesTheBeginning) {
  EXPECT_TRUE(matches("re:.*gate$", "model.mlp.gate"));
  EXPECT_FALSE(matches("re:.*gate$", "model.mlp.gate_proj"));
  EXPECT_TRUE(matches("re:model", "model.norm"));
  EXPECT_FALSE(matches("re:norm", "model.norm"));
}

TEST(ModulePattern, BadAndEndlessPatternsAreInputErrors) {
  EXPECT_EQ(input_error([] { matches("re:(a", "a"); }).find("config.json: the pattern re:(a is not a regular"), 0u);
  EXPECT_NE(input_error([] { matches("re:(a*)*(a*)*b", std::string(60, 'a')); }).find("more than 100000 steps"),
            std::string::npos);
  EXPECT_NE(input_error([] { matches(std::string(5000, 'a'), "a"); }).find("5000 bytes"), std::string::npos);
}

}  // namespace
}  // namespace nibble
