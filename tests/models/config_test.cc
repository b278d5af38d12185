#include "models/config.h"

#include <cmath>

#include "checkpoint/test_files.h"
#include "weights/memory_checkpoint.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// ---- ConfigReader ----

Json keys() {
  return {{"four", 4},   {"zero", 0},          {"minus", -3},         {"half", 0.5},  {"yes", true},    {"name", "x"},
          {"list", {1}}, {"nothing", nullptr}, {"inner", {{"a", 1}}}, {"big", 1e300}, {"llama.four", 5}};
}

TEST(ConfigReader, ReadsWhatIsThere) {
  const Json json = keys();
  const ConfigReader reader("f.json", json);
  EXPECT_EQ(reader.size("four", 4), 4);
  EXPECT_EQ(reader.size("none", 4, 3), 3);
  EXPECT_EQ(reader.size("nothing", 4, 3), 3);  // null is missing
  EXPECT_EQ(reader.number("half"), 0.5);
  EXPECT_EQ(reader.number("four"), 4);
  EXPECT_EQ(reader.number("none", 1.5), 1.5);
  EXPECT_TRUE(reader.boolean("yes", false));
  EXPECT_TRUE(reader.boolean("none", true));
  EXPECT_EQ(reader.text("name"), "x");
  EXPECT_EQ(reader.text("nothing", "y"), "y");
  EXPECT_TRUE(reader.has("zero"));
  EXPECT_FALSE(reader.has("nothing"));
  EXPECT_FALSE(reader.has("none"));
  EXPECT_EQ(reader.object("inner")->size("a", 9), 1);
  EXPECT_FALSE(reader.object("none"));
  EXPECT_EQ(ConfigReader("f.gguf", json, "llama.").size("four", 9), 5);
}

TEST(ConfigReader, ErrorsNameFileKeyValueAndWhatWasExpected) {
  const Json json = keys();
  const ConfigReader reader("f.json", json);
  const auto expect = [](const auto& call, const char* message) { EXPECT_EQ(error_of(call), message); };
  expect([&] { reader.size("none", 7); }, "f.json: none is missing; a whole number from 1 to 7 expected");
  expect([&] { reader.size("nothing", 7); }, "f.json: nothing is missing; a whole number from 1 to 7 expected");
  expect([&] { reader.size("four", 3); }, "f.json: four is 4; a whole number from 1 to 3 expected");
  expect([&] { reader.size("zero", 7); }, "f.json: zero is 0; a whole number from 1 to 7 expected");
  expect([&] { reader.size("minus", 7, 1); }, "f.json: minus is -3; a whole number from 1 to 7 expected");
  expect([&] { reader.size("half", 7); }, "f.json: half is 0.5; a whole number from 1 to 7 expected");
  expect([&] { reader.size("list", 7); }, "f.json: list is [1]; a whole number from 1 to 7 expected");
  expect([&] { reader.number("name"); }, "f.json: name is \"x\"; a number expected");
  expect([&] { reader.number("none"); }, "f.json: none is missing; a number expected");
  expect([&] { reader.boolean("four", true); }, "f.json: four is 4; true or false expected");
  expect([&] { reader.text("inner"); }, "f.json: inner is {\"a\":1}; a text expected");
  expect([&] { reader.object("name"); }, "f.json: name is \"x\"; an object expected");
  expect([&] { ConfigReader("f.gguf", json, "llama.").size("five", 9); },
         "f.gguf: llama.five is missing; a whole number from 1 to 9 expected");
  const Json infinite = {{"x", INFINITY}};
  EXPECT_NE(error_of([&] { ConfigReader("f", infinite).number("x"); }), "");
}

// ---- read_decoder_config ----

Json llama() {
  return {{"model_type", "llama"},      {"hidden_size", 96},        {"intermediate_size", 160},
          {"num_hidden_layers", 2},     {"num_attention_heads", 6}, {"num_key_value_heads", 2},
          {"vocab_size", 131},          {"rms_norm_eps", 1e-5},     {"max_position_embeddings", 256},
          {"tie_word_embeddings", true}};
}
Json with(Json config, const Json& changes) {
  for (const auto& [key, value] : changes.items()) config[key] = value;
  return config;
}
DecoderConfig read(const Json& config) {
  return read_decoder_config(*MemoryCheckpoint(Container::safetensors, config).checkpoint);
}
std::string error(const Json& changes) {
  return error_of([&] { read(with(llama(), changes)); });
}

TEST(DecoderConfig, OfAHuggingFaceFolder) {
  const DecoderConfig c = read(llama());
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.hidden_size, 96);
  EXPECT_EQ(c.intermediate_size, 160);
  EXPECT_EQ(c.num_layers, 2);
  EXPECT_EQ(c.num_heads, 6);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);  // hidden_size over the heads
  EXPECT_EQ(c.vocab_size, 131);
  EXPECT_EQ(c.max_position_embeddings, 256);
  EXPECT_FLOAT_EQ(c.rms_norm_eps, 1e-5f);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.rope.scaling, RopeScaling::none);
  EXPECT_EQ(c.rotation.inv_freq.size(), 8u);
  EXPECT_EQ(read(with(llama(), {{"head_dim", 22}})).head_dim, 22);
  EXPECT_EQ(read(with(llama(), {{"num_key_value_heads", nullptr}})).num_kv_heads, 6);
}

TEST(DecoderConfig, BothStylesOfRope) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 32}};
  const DecoderConfig older = read(with(llama(), {{"rope_theta", 5e5}, {"rope_scaling", scaling}}));
  const DecoderConfig newer = read(with(llama(), {{"rope_parameters", with(scaling, {{"rope_theta", 5e5}})}}));
  EXPECT_EQ(older.rotation.inv_freq, newer.rotation.inv_freq);
  EXPECT_EQ(older.rope.factor, 8);
  EXPECT_EQ(older.rope.theta, 5e5);
  EXPECT_NE(older.rotation.inv_freq, read(with(llama(), {{"rope_theta", 5e5}})).rotation.inv_freq);
  // The newer one goes first; "type" is the oldest name.
  EXPECT_EQ(read(with(llama(), {{"rope_theta", 7.0}, {"rope_parameters", {{"rope_theta", 5e5}}}})).rope.theta, 5e5);
  EXPECT_EQ(read(with(llama(), {{"rope_scaling", {{"type", "linear"}, {"factor", 3}}}})).rope.factor, 3);
}

TEST(DecoderConfig, Yarn) {
  const auto yarn = [](const Json& more) {
    return read(
        with(llama(), {{"rope_scaling", with({{"type", "yarn"}, {"original_max_position_embeddings", 64}}, more)}}));
  };
  EXPECT_EQ(yarn({{"factor", 2.0}}).rope.factor, 2);
  EXPECT_EQ(yarn({}).rope.factor, 4);  // 256 / 64
  EXPECT_FLOAT_EQ(yarn({}).rotation.scale, static_cast<float>(0.1 * std::log(4) + 1));
  EXPECT_EQ(yarn({{"attention_factor", 1.5}}).rotation.scale, 1.5f);
  EXPECT_FLOAT_EQ(yarn({{"mscale", 1.0}, {"mscale_all_dim", 0.5}}).rotation.scale,
                  static_cast<float>((0.1 * std::log(4) + 1) / (0.05 * std::log(4) + 1)));
  EXPECT_EQ(yarn({{"beta_fast", 8}, {"beta_slow", 2}, {"truncate", false}}).rope.beta_slow, 2);
  expect_parts(error({{"rope_scaling", {{"type", "yarn"}, {"factor", 2}, {"beta_fast", 1}, {"beta_slow", 2}}}}),
               {"config.json: beta_fast is 1", "more than beta_slow (2)"});
}

TEST(DecoderConfig, PartialRotation) {
  const DecoderConfig c = read(with(llama(), {{"partial_rotary_factor", 0.5}}));
  EXPECT_EQ(c.rope.rotary_dim, 8);
  EXPECT_EQ(c.rotation.inv_freq.size(), 4u);
  expect_parts(error({{"partial_rotary_factor", 1.5}}), {"partial_rotary_factor is 1.5", "up to 1"});
  expect_parts(error({{"partial_rotary_factor", 0}}), {"partial_rotary_factor is 0", "above 0"});
}

TEST(DecoderConfig, ErrorsOfAHuggingFaceFolder) {
  expect_parts(error({{"hidden_size", nullptr}}), {"model/config.json: hidden_size is missing", "1 to 1048576"});
  expect_parts(error({{"hidden_size", 1 << 21}}), {"hidden_size is 2097152", "1 to 1048576"});
  expect_parts(error({{"num_hidden_layers", 5000}}), {"num_hidden_layers is 5000", "1 to 1024"});
  expect_parts(error({{"num_key_value_heads", 4}}), {"num_key_value_heads is 4", "a divisor of the 6 query heads"});
  expect_parts(error({{"head_dim", 15}}), {"head_dim is 15", "even"});
  expect_parts(error({{"hidden_act", "gelu"}}), {"hidden_act is \"gelu\"", "silu is implemented"});
  expect_parts(error({{"use_sliding_window", true}}), {"use_sliding_window is true", "false is implemented"});
  expect_parts(error({{"rope_theta", 1.0}}), {"rope_theta is 1", "above 1"});
  expect_parts(error({{"rms_norm_eps", 1e300}}), {"config.json: the epsilon of the norms is inf"});
  expect_parts(error({{"rms_norm_eps", -1}}), {"config.json: the epsilon of the norms is -1"});
  expect_parts(error({{"rope_scaling", {{"type", "linear"}, {"factor", 1e-300}}}}),
               {"config.json: the rope's parameters make a frequency inf"});
  expect_parts(error({{"num_attention_heads", 4096}, {"head_dim", 1024}}),
               {"4096 heads of 1024 are wider than 1048576"});
  expect_parts(error({{"rope_scaling", {{"type", "longrope"}}}}),
               {"config.json: type is \"longrope\"", "default, linear, llama3 or yarn"});
  expect_parts(error({{"rope_scaling", {{"type", "linear"}}}}), {"factor is missing", "a number"});
  expect_parts(error({{"rope_scaling", {{"type", "linear"}, {"factor", -2}}}}), {"factor is -2", "positive"});
  expect_parts(error({{"rope_scaling",
                       {{"rope_type", "llama3"},
                        {"factor", 8},
                        {"original_max_position_embeddings", 0},
                        {"low_freq_factor", 1},
                        {"high_freq_factor", 4}}}}),
               {"original_max_position_embeddings is 0", "above 0"});
  expect_parts(error({{"rope_scaling",
                       {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}}}),
               {"high_freq_factor is 4", "more than low_freq_factor (4)"});
  expect_parts(error({{"rope_scaling", "yarn"}}), {"rope_scaling is \"yarn\"", "an object"});
  expect_parts(error({{"model_type", 3}}), {"model_type is 3", "a text"});
}

// ---- GGUF ----

Json gguf() {
  return {{"general.architecture", "llama"},  {"llama.embedding_length", 96},
          {"llama.feed_forward_length", 160}, {"llama.block_count", 2},
          {"llama.attention.head_count", 6},  {"llama.attention.head_count_kv", 2},
          {"llama.context_length", 256},      {"llama.attention.layer_norm_rms_epsilon", 1e-5},
          {"llama.rope.freq_base", 500000.0}, {"llama.vocab_size", 131}};
}
DecoderConfig read_gguf_config(const Json& config, const std::vector<float>& divisors = {}) {
  MemoryCheckpoint checkpoint(Container::gguf, config);
  if (!divisors.empty()) {
    const auto* first = reinterpret_cast<const uint8_t*>(divisors.data());
    checkpoint.add("rope_freqs.weight", DType::f32, {static_cast<int64_t>(divisors.size())},
                   Bytes(first, first + 4 * divisors.size()));
  }
  return read_decoder_config(*checkpoint.checkpoint);
}
std::string gguf_error(const Json& changes, const std::vector<float>& divisors = {}) {
  return error_of([&] { read_gguf_config(with(gguf(), changes), divisors); });
}

TEST(DecoderConfig, OfAGgufFile) {
  const DecoderConfig c = read_gguf_config(gguf());
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.hidden_size, 96);
  EXPECT_EQ(c.num_layers, 2);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.vocab_size, 131);
  EXPECT_EQ(c.rope.theta, 500000);
  EXPECT_TRUE(c.tied_embeddings);  // there is no output.weight
  EXPECT_TRUE(c.rope_is_known);
  const DecoderConfig other = read_gguf_config(with(gguf(), {{"llama.attention.key_length", 24},
                                                             {"llama.attention.value_length", 24},
                                                             {"llama.rope.dimension_count", 12},
                                                             {"tokenizer.ggml.tokens", {"a", "b"}},
                                                             {"llama.vocab_size", nullptr}}));
  EXPECT_EQ(other.head_dim, 24);
  EXPECT_EQ(other.rope.rotary_dim, 12);
  EXPECT_EQ(other.vocab_size, 2);
}

TEST(DecoderConfig, AGgufsDivisorsBecomeLlama3OrStayUnknown) {
  RopeParameters llama3{.theta = 500000,
                        .rotary_dim = 16,
                        .scaling = RopeScaling::llama3,
                        .factor = 8,
                        .original_max_position_embeddings = 8192};
  const Rotation plain = make_rotation({.theta = 500000, .rotary_dim = 16}), scaled = make_rotation(llama3);
  std::vector<float> divisors;
  for (size_t i = 0; i < 8; i++) divisors.push_back(plain.inv_freq[i] / scaled.inv_freq[i]);
  const DecoderConfig c = read_gguf_config(gguf(), divisors);
  EXPECT_EQ(c.rope.scaling, RopeScaling::llama3);
  EXPECT_TRUE(c.rope_is_known);
  for (size_t i = 0; i < 8; i++) EXPECT_FLOAT_EQ(c.rotation.inv_freq[i], scaled.inv_freq[i]);
  EXPECT_EQ(to_hugging_face_config(c).at("rope_parameters").at("rope_type"), "llama3");

  const DecoderConfig odd = read_gguf_config(gguf(), {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_FALSE(odd.rope_is_known);
  EXPECT_FLOAT_EQ(odd.rotation.inv_freq[3], plain.inv_freq[3] / 4);
  expect_parts(error_of([&] { to_hugging_face_config(odd); }), {"rope_freqs.weight", "llama3"});
}

TEST(DecoderConfig, AGgufsAttentionFactorMultipliesYarns) {
  const Json yarn = {{"llama.rope.scaling.type", "yarn"},
                     {"llama.rope.scaling.factor", 4.0},
                     {"llama.rope.scaling.original_context_length", 64}};
  const float usual = static_cast<float>(0.1 * std::log(4) + 1);
  EXPECT_FLOAT_EQ(read_gguf_config(with(gguf(), yarn)).rotation.scale, usual);
  EXPECT_FLOAT_EQ(read_gguf_config(with(with(gguf(), yarn), {{"llama.rope.scaling.attn_factor", 1.0}})).rotation.scale,
                  usual);
  EXPECT_FLOAT_EQ(read_gguf_config(with(with(gguf(), yarn), {{"llama.rope.scaling.attn_factor", 0.5}})).rotation.scale,
                  usual / 2);
}

TEST(DecoderConfig, ErrorsOfAGgufFile) {
  expect_parts(gguf_error({{"llama.embedding_length", nullptr}}), {"model: llama.embedding_length is missing"});
  expect_parts(gguf_error({{"llama.vocab_size", nullptr}}), {"llama.vocab_size is missing"});
  expect_parts(gguf_error({{"llama.attention.value_length", 8}}),
               {"llama.attention.value_length is 8", "the keys' length, 16"});
  expect_parts(gguf_error({{"llama.attention.head_count_kv", 5}}),
               {"llama.attention.head_count_kv is 5", "divisor of the 6"});
  expect_parts(gguf_error({{"llama.attention.head_count_kv", {2, 2}}}), {"llama.attention.head_count_kv is [2,2]"});
  expect_parts(gguf_error({{"llama.rope.dimension_count", 18}}), {"dimension_count is 18", "up to the head's 16"});
  expect_parts(gguf_error({{"llama.rope.scaling.type", "longrope"}}), {"llama.rope.scaling.type is \"longrope\""});
  expect_parts(gguf_error({}, {1, 2, 3}), {"rope_freqs.weight", "F32 [3] in the file", "F32 [8] expected"});
  expect_parts(gguf_error({}, {1, 1, 1, 1, 1, 0, 1, 1}), {"rope_freqs.weight[5] is 0", "a positive number"});
  expect_parts(gguf_error({}, {1, 1, NAN, 1, 1, 1, 1, 1}), {"rope_freqs.weight[2] is nan", "a positive number"});
}

// ---- to_hugging_face_config ----

TEST(DecoderConfig, IsReadBackFromWhatItWrites) {
  for (const Json& changes : {Json::object(), Json{{"head_dim", 24}, {"partial_rotary_factor", 0.5}},
                              Json{{"rope_scaling", {{"type", "linear"}, {"factor", 2.5}}}},
                              Json{{"rope_scaling",
                                    {{"rope_type", "llama3"},
                                     {"factor", 8.0},
                                     {"low_freq_factor", 1.0},
                                     {"high_freq_factor", 4.0},
                                     {"original_max_position_embeddings", 32}}}},
                              Json{{"rope_scaling",
                                    {{"type", "yarn"},
                                     {"factor", 3.0},
                                     {"original_max_position_embeddings", 24},
                                     {"beta_fast", 8},
                                     {"beta_slow", 2},
                                     {"attention_factor", 1.25},
                                     {"truncate", false}}}},
                              Json{{"model_type", "qwen3"}, {"tie_word_embeddings", false}}}) {
    SCOPED_TRACE(changes.dump());
    const DecoderConfig was = read(with(llama(), changes));
    const Json written = parse_json(to_hugging_face_config(was).dump());
    const DecoderConfig is = read(written);
    EXPECT_EQ(is.architecture, was.architecture);
    EXPECT_EQ(is.head_dim, was.head_dim);
    EXPECT_EQ(is.rope.rotary_dim, was.rope.rotary_dim);
    EXPECT_EQ(is.tied_embeddings, was.tied_embeddings);
    EXPECT_EQ(is.rms_norm_eps, was.rms_norm_eps);
    EXPECT_EQ(is.rotation.inv_freq, was.rotation.inv_freq);
    EXPECT_EQ(is.rotation.scale, was.rotation.scale);
    EXPECT_EQ(written.at("architectures")[0], was.architecture == "llama" ? "LlamaForCausalLM" : "Qwen3ForCausalLM");
  }
}

}  // namespace
}  // namespace nibble
