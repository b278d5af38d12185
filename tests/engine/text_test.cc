#include "engine/text.h"

#include "checkpoint/gguf_writer.h"
#include "checkpoint/test_files.h"
#include "goldens.h"
#include "text/chat_template.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

const std::filesystem::path kFolder = kModels / "llama-bf16", kGguf = kModels / "llama-gguf-floats" / "model.gguf",
                            kWithout = kModels / "llama-ct-mxfp4";

// A copy of the folder whose files can be changed.
struct Copy : TemporaryFolder {
  Copy() { std::filesystem::copy(kFolder, path()); }
  Checkpoint open() const { return open_checkpoint(path()); }
  void write_json(const std::string& name, const Json& json) const { write(name, json.dump()); }
};

// A GGUF file without tensors but with this metadata.
Checkpoint gguf_with(const TemporaryFolder& folder, std::vector<GgufEntry> entries) {
  entries.push_back({"general.architecture", std::string("llama")});
  GgufWriter(folder.path() / "m.gguf", entries, {}).finish();
  return open_checkpoint(folder.path() / "m.gguf");
}

TEST(Text, TokenizersOfAFolderAFileAndAGgufAgree) {
  const Tokenizer folder = load_tokenizer(kFolder), file = load_tokenizer(kFolder / "tokenizer.json"),
                  gguf = load_tokenizer(kGguf);
  for (const char* text : {"the corn and the flour", "", "naïve 日本語 <|start|>x<|end|>", "  \n\n\tx"}) {
    for (bool special : {false, true}) {
      const auto ids = folder.encode(text, {.parse_special = special});
      EXPECT_EQ(file.encode(text, {.parse_special = special}), ids) << text;
      EXPECT_EQ(gguf.encode(text, {.parse_special = special}), ids) << text;
    }
  }
  EXPECT_EQ(folder.bos(), 329);
  EXPECT_EQ(folder.eos(), 330);
  EXPECT_EQ(gguf.bos(), 329);
  EXPECT_EQ(gguf.eos(), 330);
  EXPECT_EQ(file.bos(), std::nullopt);  // tokenizer_config.json names it, which a lone file does not have
  EXPECT_EQ(find_tokenizer(open_checkpoint(kFolder))->eos(), 330);
  EXPECT_EQ(find_tokenizer(open_checkpoint(kGguf))->eos(), 330);
}

TEST(Text, AFolderMayHoldNothingButASentencePieceModel) {
  const std::filesystem::path model = std::filesystem::path(NIBBLE_TEST_DATA) / "text" / "tokenizers" / "bpe_nmt.model";
  const TemporaryFolder folder;
  std::filesystem::copy(model, folder.path() / "tokenizer.model");
  const auto ids = load_tokenizer(model).encode("the corn");
  EXPECT_EQ(ids.size(), 2u);
  EXPECT_EQ(load_tokenizer(folder.path()).encode("the corn"), ids);
  folder.write("tokenizer_config.json", "{\"add_eos_token\": true}");
  EXPECT_TRUE(load_tokenizer(folder.path()).adds_eos());
  const auto broken = folder.write("tokenizer.model", "\x0A\x7F");
  expect_parts(error_of([&] { load_tokenizer(broken); }), {broken.string(), "longer than the message"});
}

TEST(Text, WhereThereIsNoTokenizer) {
  EXPECT_FALSE(find_tokenizer(open_checkpoint(kWithout)));
  EXPECT_FALSE(find_tokenizer(open_checkpoint(kModels / "llama-gguf-q4_0" / "model.gguf")));
  expect_parts(error_of([] { load_tokenizer(kWithout); }), {kWithout.string(), "has no tokenizer.json"});
  expect_parts(error_of([] { load_tokenizer(kModels / "none.json"); }), {"none.json", "cannot be opened"});
  const TemporaryFolder folder;
  const auto broken = folder.write("tokenizer.json", "{\"model\": ");
  expect_parts(error_of([&] { load_tokenizer(broken); }), {broken.string(), "not valid JSON"});
}

TEST(Text, ChatTemplates) {
  const auto of_folder = find_chat_template(open_checkpoint(kFolder)),
             of_gguf = find_chat_template(open_checkpoint(kGguf));
  ASSERT_TRUE(of_folder && of_gguf);
  EXPECT_EQ(*of_folder, *of_gguf);
  const Tokenizer tokenizer = load_tokenizer(kFolder);
  EXPECT_EQ(ChatTemplate(*of_folder)
                .render({.messages = Json::array({{{"role", "user"}, {"content", "Hi"}}}),
                         .variables = template_variables(tokenizer)}),
            "<|start|>user\nHi<|end|>\n<|start|>assistant\n");
  EXPECT_FALSE(find_chat_template(open_checkpoint(kWithout)));
  EXPECT_FALSE(find_chat_template(open_checkpoint(kModels / "llama-gguf-q4_0" / "model.gguf")));
}

TEST(Text, AFoldersTemplateHasItsFileOrStandsInTheConfiguration) {
  const Copy copy;
  copy.write("chat_template.jinja", "from the file");  // goes before tokenizer_config.json
  EXPECT_EQ(find_chat_template(copy.open()), "from the file");
  std::filesystem::remove(copy.path() / "chat_template.jinja");
  copy.write_json("tokenizer_config.json",
                  {{"chat_template",
                    {{{"name", "tool_use"}, {"template", "tools"}}, {{"name", "default"}, {"template", "talk"}}}}});
  EXPECT_EQ(find_chat_template(copy.open()), "talk");
  copy.write_json("tokenizer_config.json", {{"chat_template", nullptr}});
  EXPECT_EQ(find_chat_template(copy.open()), std::nullopt);
  for (const Json& value : {Json(5), Json::object(), Json::array(), Json{{{"name", "tool_use"}, {"template", "tools"}}},
                            Json{{{"name", "default"}, {"template", 5}}}}) {
    copy.write_json("tokenizer_config.json", {{"chat_template", value}});
    expect_parts(error_of([&] { find_chat_template(copy.open()); }), {"tokenizer_config.json: chat_template"});
  }
  std::filesystem::remove(copy.path() / "tokenizer_config.json");
  EXPECT_EQ(find_chat_template(copy.open()), std::nullopt);
}

TEST(Text, TemplateVariables) {
  EXPECT_EQ(template_variables(load_tokenizer(kFolder)), (Json{{"bos_token", "<|start|>"}, {"eos_token", "<|end|>"}}));
  EXPECT_EQ(template_variables(load_tokenizer(kFolder / "tokenizer.json")),
            (Json{{"bos_token", ""}, {"eos_token", ""}}));
}

TEST(Text, StopTokens) {
  EXPECT_EQ(stop_tokens(open_checkpoint(kFolder)), (std::vector<int32_t>{330, 340}));
  EXPECT_EQ(stop_tokens(open_checkpoint(kGguf)), (std::vector<int32_t>{330}));
  EXPECT_EQ(stop_tokens(open_checkpoint(kWithout)), (std::vector<int32_t>{130}));  // config.json's
  const Copy copy;
  copy.write_json("generation_config.json", {{"eos_token_id", 7}});
  EXPECT_EQ(stop_tokens(copy.open()), (std::vector<int32_t>{7}));
  copy.write_json("generation_config.json", {{"eos_token_id", nullptr}});
  EXPECT_EQ(stop_tokens(copy.open()), (std::vector<int32_t>{340}));
  copy.write_json("generation_config.json", {{"eos_token_id", {7, uint64_t{1} << 32, -1, "x"}}});  // no token's ids
  EXPECT_EQ(stop_tokens(copy.open()), (std::vector<int32_t>{7}));
  const TemporaryFolder folder;
  EXPECT_EQ(stop_tokens(gguf_with(folder, {{"tokenizer.ggml.eos_token_id", uint32_t{3}},
                                           {"tokenizer.ggml.eot_token_id", uint32_t{5}},
                                           {"tokenizer.ggml.eom_token_id", uint32_t{8}}})),
            (std::vector<int32_t>{3, 5, 8}));
}

TEST(Text, SamplingIsTheBestTokenUnlessTheCheckpointSays) {
  const auto expect = [](const SamplingOptions& o, float temperature, int64_t top_k, float top_p, float min_p,
                         float penalty) {
    EXPECT_EQ(o.temperature, temperature);
    EXPECT_EQ(o.top_k, top_k);
    EXPECT_EQ(o.top_p, top_p);
    EXPECT_EQ(o.min_p, min_p);
    EXPECT_EQ(o.repetition_penalty, penalty);
    EXPECT_EQ(o.seed, std::nullopt);
  };
  expect(default_sampling(open_checkpoint(kFolder)), 0, 0, 1, 0, 1);
  expect(default_sampling(open_checkpoint(kGguf)), 0, 0, 1, 0, 1);
  const Copy copy;
  copy.write_json("generation_config.json", {{"do_sample", true}});
  expect(default_sampling(copy.open()), 1, 0, 1, 0, 1);
  copy.write_json("generation_config.json", {{"do_sample", true},
                                             {"temperature", 0.6},
                                             {"top_k", 20},
                                             {"top_p", 0.95},
                                             {"min_p", 0.01},
                                             {"repetition_penalty", 1.05}});
  expect(default_sampling(copy.open()), 0.6f, 20, 0.95f, 0.01f, 1.05f);
  copy.write_json("generation_config.json", {{"do_sample", false}, {"temperature", 0.6}});
  expect(default_sampling(copy.open()), 0, 0, 1, 0, 1);
  copy.write_json("generation_config.json", {{"do_sample", nullptr}, {"temperature", 0.6}});
  expect(default_sampling(copy.open()), 0, 0, 1, 0, 1);
  for (const char* key : {"top_k", "temperature", "top_p"})
    for (const double value : {1e300, -1e9}) {
      copy.write_json("generation_config.json", {{"do_sample", true}, {key, value}});
      expect_parts(error_of([&] { default_sampling(copy.open()); }), {"generation_config.json: ", key});
    }
  for (const auto& [key, value] : {std::pair("do_sample", Json("yes")), {"temperature", "hot"}, {"top_k", 1.5}}) {
    Json config = {{"do_sample", true}};
    config[key] = value;
    copy.write_json("generation_config.json", config);
    expect_parts(error_of([&] { default_sampling(copy.open()); }), {"generation_config.json: ", key, value.dump()});
  }
}

}  // namespace
}  // namespace nibble
