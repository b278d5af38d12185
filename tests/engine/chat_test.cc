#include "engine/chat.h"

#include "checkpoint/test_files.h"
#include "engine/text.h"
#include "goldens.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

class ConversationTest : public testing::Test {
 protected:
  Engine engine = open_engine(kTalking, "reference");
  Session session{engine};
  const Tokenizer tokenizer = load_tokenizer(kTalking);
  Conversation conversation{engine.checkpoint(), tokenizer, session, {}};
  GenerateOptions options{.max_new_tokens = 6};

  Reply say(const std::string& message) { return conversation.answer(message, options, {}, {}); }
  std::vector<int32_t> prompt(const Json& messages) const {
    return chat_prompt(engine.checkpoint(), tokenizer, messages, {}).tokens;
  }
};

TEST_F(ConversationTest, OnlyWhatDiffersIsPutThrough) {
  const Reply first = say("Hi");
  const Json question = {{"role", "user"}, {"content", "Hi"}};
  const auto first_prompt = prompt(Json::array({question}));
  EXPECT_EQ(first.reused_tokens, 0);
  EXPECT_EQ(first.result.prompt_tokens, static_cast<int64_t>(first_prompt.size()));
  EXPECT_EQ(first.result.tokens.size(), 6u);

  // The cache holds the first prompt and all tokens of the answer but the last, which was sampled and not put through.
  std::vector<int32_t> cached = first_prompt;
  cached.insert(cached.end(), first.result.tokens.begin(), first.result.tokens.end() - 1);
  EXPECT_EQ(std::vector(session.tokens().begin(), session.tokens().end()), cached);

  Json messages = conversation.messages();
  ASSERT_EQ(messages, Json::array({question, {{"role", "assistant"}, {"content", first.content}}}));
  messages.push_back({{"role", "user"}, {"content", "and then?"}});
  const auto second_prompt = prompt(messages);
  const auto common = std::ranges::mismatch(cached, second_prompt).in1 - cached.begin();
  const Reply second = say("and then?");
  EXPECT_GE(common, static_cast<int64_t>(first_prompt.size()));
  EXPECT_EQ(second.reused_tokens, common);
  EXPECT_EQ(second.reused_tokens + second.result.prompt_tokens, static_cast<int64_t>(second_prompt.size()));

  // The answer is that of a session which has seen nothing before.
  Session fresh(engine);
  EXPECT_EQ(generate(fresh, second_prompt, options, &tokenizer, {}).tokens, second.result.tokens);
}

TEST_F(ConversationTest, AnEqualPromptPutsItsLastTokenThrough) {
  const Reply first = say("Hi");
  conversation.reset();
  const Reply again = say("Hi");
  EXPECT_EQ(again.result.prompt_tokens, 1);
  EXPECT_EQ(again.reused_tokens, first.result.prompt_tokens - 1);
  EXPECT_EQ(again.result.tokens, first.result.tokens);
}

TEST_F(ConversationTest, SystemResetAndDrop) {
  const auto roles = [&] {
    std::string all;
    for (const Json& message : conversation.messages()) all += message.at("role").get<std::string>()[0];
    return all;
  };
  conversation.set_system("Be brief");
  say("one");
  say("two");
  EXPECT_EQ(roles(), "suaua");
  EXPECT_TRUE(conversation.drop_oldest());
  EXPECT_EQ(roles(), "sua");
  EXPECT_EQ(conversation.messages()[1].at("content"), "two");
  conversation.set_system("Be long");
  EXPECT_EQ(conversation.messages()[0].at("content"), "Be long");
  EXPECT_EQ(roles(), "sua");
  conversation.reset();
  EXPECT_EQ(roles(), "s");
  EXPECT_FALSE(conversation.drop_oldest());
  conversation.set_system("");
  EXPECT_EQ(roles(), "");
}

TEST_F(ConversationTest, AFullContextIsRefusedAndTheMessagesStay) {
  options.max_new_tokens = 200;
  const std::string long_text(150, 'x');
  say(long_text);
  const Json before = conversation.messages();
  expect_parts(error_of([&] { say(long_text); }), {"tokens", "context 256 positions", "/drop", "/reset", "--ctx"});
  EXPECT_EQ(conversation.messages(), before);
  EXPECT_TRUE(conversation.drop_oldest());
  options.max_new_tokens = 5;
  EXPECT_EQ(say("Hi").result.tokens.size(), 5u);
}

TEST_F(ConversationTest, AnInterruptedAnswerStaysAsFarAsItCame) {
  std::atomic<bool> stop = false;
  options.max_new_tokens = 100;
  options.stop = &stop;
  const Reply reply = conversation.answer("Hi", options, {}, [&](std::string_view) { stop = true; });
  EXPECT_EQ(reply.result.finish_reason, FinishReason::interrupted);
  EXPECT_LT(reply.result.tokens.size(), 20u);
  EXPECT_EQ(conversation.messages().back().at("content"), reply.content);
  const Reply nothing = say("Hi");  // the flag is still set: not even the prompt goes through
  EXPECT_EQ(nothing.result.finish_reason, FinishReason::interrupted);
  EXPECT_TRUE(nothing.content.empty());
  stop = false;
  EXPECT_EQ(say("Hi").result.finish_reason, FinishReason::length);
}

TEST_F(ConversationTest, MessagesAreChecked) {
  for (const char* text : {"{}", "[1]", R"([{"role": "user"}])", R"([{"role": 1, "content": "x"}])"})
    expect_parts(error_of([&] { conversation.set_messages(parse_ordered_json(text)); }), {"messages: ", "expected"});
  conversation.set_messages(parse_ordered_json(R"([{"role": "user", "content": "x"}])"));
  EXPECT_EQ(conversation.messages().size(), 1u);
}

TEST_F(ConversationTest, ThinkingIsApartFromTheContent) {
  const TemporaryFolder folder;
  std::filesystem::copy(kTalking, folder.path());
  // The template writes the first tag, and what the model says is thinking until the end tag, which never comes.
  folder.write("chat_template.jinja",
               "{% for m in messages %}{{ m.role }}:{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
               "{{ m.content.split('</think>')[-1] }};{% endfor %}<think>\n");
  const Checkpoint checkpoint = open_checkpoint(folder.path());
  Conversation thinker(checkpoint, tokenizer, session, {});
  std::string heard;
  const Reply reply =
      thinker.answer("Hi", options, [&](std::string_view text) { heard += text; }, [](auto) { FAIL(); });
  EXPECT_FALSE(reply.thinking.empty());
  EXPECT_EQ(heard, reply.thinking);
  EXPECT_EQ(reply.content, "");
  EXPECT_EQ(thinker.messages().back(),
            (Json{{"role", "assistant"}, {"content", ""}, {"reasoning_content", reply.thinking}}));
}

// ---- stop tokens ----

std::vector<int32_t> stops_with(const std::string& chat_template) {
  const TemporaryFolder folder;
  std::filesystem::copy(kTalking, folder.path());
  folder.write("generation_config.json", R"({"eos_token_id": 7})");
  folder.write("chat_template.jinja", chat_template);
  return chat_stop_tokens(open_checkpoint(folder.path()), load_tokenizer(folder.path()));
}

TEST(ChatStopTokens, AreThoseOfTheCheckpointAndWhatEndsATurn) {
  const std::string start = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}";
  EXPECT_EQ(stops_with(start + "<|end|>\n{% endfor %}"), (std::vector<int32_t>{7, 330}));
  EXPECT_EQ(stops_with(start + " \n<|end|>{% endfor %}"), (std::vector<int32_t>{7, 330}));
  EXPECT_EQ(stops_with(start + "{% endfor %}"), (std::vector<int32_t>{7, 329}));  // the next turn's first token
  EXPECT_EQ(stops_with(start + "END{% endfor %}"), (std::vector<int32_t>{7}));    // text is no token to stop at
  EXPECT_EQ(stops_with("{{ raise_exception('no') }}"), (std::vector<int32_t>{7}));
  EXPECT_EQ(stops_with("{% for m in messages if m.role == 'user' %}{{ m.content }}<|end|>{% endfor %}"),
            (std::vector<int32_t>{7}));
  // gpt-oss: a last message ends otherwise than one before another, which the model also puts behind its thinking.
  EXPECT_EQ(stops_with(start + "{% if loop.last %}<|end|>{% else %}<|start|>{% endif %}{% endfor %}"),
            (std::vector<int32_t>{7, 330}));
}

}  // namespace
}  // namespace nibble
