#include "engine/reasoning.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

struct Parts {
  std::string thinking, content;
  bool operator==(const Parts&) const = default;
};

void PrintTo(const Parts& parts, std::ostream* out) { *out << "{" << parts.thinking << "}{" << parts.content << "}"; }

// What is heard of `text` cut into pieces of every size; all of them agree.
Parts split(const ThinkingStyle& style, std::string_view prompt, std::string_view text) {
  std::optional<Parts> all;
  for (size_t size = 1; size <= std::max<size_t>(text.size(), 1); size++) {
    Parts parts;
    ThinkingSplitter splitter(
        style, prompt, [&](std::string_view piece) { parts.thinking += piece; },
        [&](std::string_view piece) { parts.content += piece; });
    for (size_t at = 0; at < text.size(); at += size) splitter.push(text.substr(at, size));
    splitter.finish();
    EXPECT_EQ(parts, (Parts{splitter.thinking(), splitter.content()}));
    if (all) {
      EXPECT_EQ(parts, *all) << size;
    }
    all = parts;
  }
  return *all;
}

const ThinkingStyle kTags = ThinkingStyle::of_template("{{ content.split('</think>')[-1] }}"),
                    kChannels = ThinkingStyle::of_template("<|channel|>analysis<|message|>");

TEST(ThinkingStyle, IsWhatTheTemplateNames) {
  EXPECT_EQ(ThinkingStyle::of_template("{{ messages }}").kind, ThinkingStyle::Kind::none);
  EXPECT_EQ(kTags.kind, ThinkingStyle::Kind::tags);
  EXPECT_EQ(kTags.open + kTags.close, "<think></think>");
  EXPECT_EQ(ThinkingStyle::of_template("[THINK]").close, "[/THINK]");
  EXPECT_EQ(kChannels.kind, ThinkingStyle::Kind::channels);
  EXPECT_EQ(ThinkingStyle::of_template("<|channel|>").kind, ThinkingStyle::Kind::none);
}

TEST(ThinkingSplitter, AnswersOfModelsThatDoNotThinkAreShownAsTheyCome) {
  EXPECT_EQ(split({}, "p", "  <think>a</think> b\n"), (Parts{"", "  <think>a</think> b\n"}));
}

TEST(ThinkingSplitter, Tags) {
  EXPECT_EQ(split(kTags, "p", "<think>\nwhy\n</think>\n\nyes"), (Parts{"why", "yes"}));
  EXPECT_EQ(split(kTags, "p", " \n<think>a b\n\nc</think>yes \n no\n"), (Parts{"a b\n\nc", "yes \n no"}));
  EXPECT_EQ(split(kTags, "p", "yes"), (Parts{"", "yes"}));
  EXPECT_EQ(split(kTags, "p", "<think>\n\n</think>\n\nyes"), (Parts{"", "yes"}));
  EXPECT_EQ(split(kTags, "p", "<think>never an answer"), (Parts{"never an answer", ""}));
  EXPECT_EQ(split(kTags, "p", ""), (Parts{"", ""}));
}

TEST(ThinkingSplitter, TheTemplateMayHaveWrittenTheFirstTag) {
  EXPECT_EQ(split(kTags, "<|assistant|><think>\n", "why</think>yes"), (Parts{"why", "yes"}));
  EXPECT_EQ(split(kTags, "<|assistant|><think>\n\n</think>\n\n", "yes"), (Parts{"", "yes"}));
}

TEST(ThinkingSplitter, TagsLaterOnAreText) {
  EXPECT_EQ(split(kTags, "p", "The tag <think> and </think>."), (Parts{"", "The tag <think> and </think>."}));
  EXPECT_EQ(split(kTags, "p", "<think>a</think>b </think> <think>c"), (Parts{"a", "b </think> <think>c"}));
  EXPECT_EQ(split(kTags, "p", "<think>a <b </thin> </think>c"), (Parts{"a <b </thin>", "c"}));
}

TEST(ThinkingSplitter, HalfATagAtTheEndIsText) {
  EXPECT_EQ(split(kTags, "p", "<thi"), (Parts{"", "<thi"}));
  EXPECT_EQ(split(kTags, "p", "<think>a</thi"), (Parts{"a</thi", ""}));
}

TEST(ThinkingSplitter, Channels) {
  EXPECT_EQ(split(kChannels, "<|start|>assistant",
                  "<|channel|>analysis<|message|>why\n<|end|><|start|>assistant<|channel|>final<|message|>yes"),
            (Parts{"why", "yes"}));
  EXPECT_EQ(split(kChannels, "<|start|>assistant", "<|channel|>final<|message|>yes"), (Parts{"", "yes"}));
  EXPECT_EQ(split(kChannels, "<|start|>assistant",
                  "<|channel|>analysis<|message|>one<|end|><|start|>assistant<|channel|>analysis<|message|>two<|end|>"
                  "<|start|>assistant<|channel|>commentary<|message|>I look<|end|>"
                  "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{}"),
            (Parts{"one\n\ntwo", "I look\n\n{}"}));
  EXPECT_EQ(split(kChannels, "<|start|>assistant", "<|channel|>analysis<|message|>why<|end|><|start|>assis"),
            (Parts{"why", ""}));
  EXPECT_EQ(split(kChannels, "<|start|>assistant<|channel|>", "no header at all"), (Parts{"", "no header at all"}));
}

TEST(ThinkingSplitter, TextIsShownAsSoonAsItIsCertain) {
  std::string shown;
  ThinkingSplitter splitter(kTags, "p", {}, [&](std::string_view text) { shown += text; });
  splitter.push("<think>a</think>");
  splitter.push("x");
  EXPECT_EQ(shown, "x");
  splitter.push(" <");
  EXPECT_EQ(shown, "x <");
  EXPECT_FALSE(splitter.is_thinking());
}

}  // namespace
}  // namespace nibble
