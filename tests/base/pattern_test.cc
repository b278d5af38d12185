#include "base/pattern.h"

#include <string>

#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble {
namespace {

std::string input_error(std::string_view expression, std::string_view name = "") {
  try {
    Pattern(expression).matches_start(name);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(Pattern, MatchesFromTheStartAndNeedNotReachTheEnd) {
  EXPECT_TRUE(Pattern("model\\.layers\\.(0|11)\\.").matches_start("model.layers.11.mlp"));
  EXPECT_FALSE(Pattern("layers").matches_start("model.layers.11.mlp"));
  EXPECT_TRUE(Pattern(".*mlp$").matches_start("model.layers.11.mlp"));
  EXPECT_FALSE(Pattern(".*mlp$").matches_start("model.layers.11.mlp.gate"));
  EXPECT_TRUE(Pattern("(?!lm_head).*").matches_start("model"));
  EXPECT_TRUE(Pattern("").matches_start(""));
}

TEST(Pattern, WhatIsNotAnExpressionIsAnInputError) {
  EXPECT_EQ(input_error("(unclosed"),
            "the pattern (unclosed is not a regular expression: missing closing parenthesis at byte 9");
  EXPECT_NE(input_error(std::string(1000, '(') + std::string(1000, ')')), "");  // nested too deeply
  EXPECT_NE(input_error("((((((a{1000}){1000}){1000}){1000}){1000}){1000})"), "");
  EXPECT_NE(input_error(std::string(5000, 'a')).find("has 5000 bytes, at most 4096 are read"), std::string::npos);
}

TEST(Pattern, AMatchThatWouldTakeForeverIsAnInputError) {
  const std::string name = std::string(200, 'a') + "b";
  EXPECT_NE(input_error("(a+)+$", name).find("cannot be matched with aaaa"), std::string::npos);
  EXPECT_NE(input_error("(?:a|aa)+$", name), "");
  EXPECT_NE(input_error("(?R)", name), "");
}

TEST(Glob, StarsStandForAnythingAndDotsForThemselves) {
  EXPECT_TRUE(glob_matches("model.layers.1.*", "model.layers.1.mlp.gate"));
  EXPECT_FALSE(glob_matches("model.layers.1.*", "model.layers.11.mlp.gate"));
  EXPECT_TRUE(glob_matches("*", ""));
  EXPECT_TRUE(glob_matches("*self_attn*", "model.layers.1.self_attn.q_proj"));
  EXPECT_TRUE(glob_matches("*a*b", "aabab"));
  EXPECT_FALSE(glob_matches("*a*b", "aaba"));
  EXPECT_TRUE(glob_matches("a?c", "abc"));
  EXPECT_FALSE(glob_matches("a?c", "ac"));
  EXPECT_FALSE(glob_matches("a.c", "abc"));
  EXPECT_FALSE(glob_matches("", "a"));
  std::string stars;
  for (int i = 0; i < 1000; i++) stars += "*a";
  EXPECT_FALSE(glob_matches(stars + "b", std::string(2000, 'a')));
}

}  // namespace
}  // namespace nibble
