// Models made from checkpoints in memory: what they ask for, what they refuse, and the step that they record.
#include "models/model.h"

#include "checkpoint/test_files.h"
#include "weights/memory_checkpoint.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

Json config(const std::string& architecture, bool tied) {
  return {{"model_type", architecture}, {"hidden_size", 6},         {"intermediate_size", 10}, {"num_hidden_layers", 1},
          {"num_attention_heads", 3},   {"num_key_value_heads", 1}, {"head_dim", 4},           {"vocab_size", 5},
          {"tie_word_embeddings", tied}};
}

struct TinyCheckpoint : MemoryCheckpoint {
  explicit TinyCheckpoint(const std::string& architecture = "llama", bool tied = false)
      : MemoryCheckpoint(Container::safetensors, config(architecture, tied)) {
    add_float("model.embed_tokens.weight", {5, 6});
    if (!tied) add_float("lm_head.weight", {5, 6});
    add_float("model.norm.weight", {6});
    const std::string at = "model.layers.0.";
    add_float(at + "input_layernorm.weight", {6});
    add_float(at + "post_attention_layernorm.weight", {6});
    add_float(at + "self_attn.q_proj.weight", {12, 6});
    add_float(at + "self_attn.k_proj.weight", {4, 6});
    add_float(at + "self_attn.v_proj.weight", {4, 6});
    add_float(at + "self_attn.o_proj.weight", {6, 12});
    add_float(at + "mlp.gate_proj.weight", {10, 6});
    add_float(at + "mlp.up_proj.weight", {10, 6});
    add_float(at + "mlp.down_proj.weight", {6, 10});
    if (architecture != "qwen3") return;
    add_float(at + "self_attn.q_norm.weight", {4});
    add_float(at + "self_attn.k_norm.weight", {4});
  }

  void add_float(const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (int64_t n : shape) count *= n;
    add(name, DType::f32, std::move(shape), Bytes(static_cast<size_t>(4 * count)));
  }
  void remove(const std::string& name) { ASSERT_EQ(checkpoint->tensors.erase(name), 1u); }

  // The model, of which the source stays with this object.
  std::unique_ptr<Model> make() {
    source = open();
    auto model = make_model(*checkpoint, *source);
    check_no_unknown_tensors(model->weights);
    return model;
  }
  std::string error() {
    return error_of([&] { make(); });
  }

  std::unique_ptr<WeightSource> source;
};

TEST(Model, UnknownArchitecturesAreRefusedWithTheKnownOnes) {
  TinyCheckpoint checkpoint;
  checkpoint.checkpoint->config["model_type"] = "mamba";
  EXPECT_EQ(checkpoint.error(),
            "model: the architecture is mamba; implemented are: deepseek_v3, glm4_moe, glm4_moe_lite, gpt_oss, llama, "
            "mixtral, qwen3, qwen3_moe");
  checkpoint.checkpoint->config.erase("model_type");
  EXPECT_EQ(checkpoint.error(), "model/config.json: model_type is missing; a text expected");
  MemoryCheckpoint gguf(Container::gguf, {{"general.architecture", "gemma3"}});
  const auto source = gguf.open();
  EXPECT_EQ(error_of([&] { make_model(*gguf.checkpoint, *source); }),
            "model: the architecture is gemma3; implemented are: deepseek2, glm4moe, gpt-oss, llama, qwen3, qwen3moe");
}

TEST(Model, EveryTensorIsNeeded) {
  for (const char* architecture : {"llama", "qwen3"}) {
    const TinyCheckpoint whole(architecture);
    for (const auto& [name, tensor] : whole.checkpoint->tensors) {
      TinyCheckpoint checkpoint(architecture);
      checkpoint.remove(name);
      const std::string stem = name.substr(0, name.rfind(".weight"));
      expect_parts(checkpoint.error(), {stem});
    }
  }
}

TEST(Model, EveryShapeIsChecked) {
  const TinyCheckpoint whole("qwen3");
  for (const auto& [name, tensor] : whole.checkpoint->tensors) {
    TinyCheckpoint checkpoint("qwen3");
    std::vector<int64_t> shape = tensor.shape;
    shape.front() += 1;
    checkpoint.add_float(name, shape);
    expect_parts(checkpoint.error(),
                 {name, shape.size() == 2 ? fmt::format("[{}, {}]", shape[0], shape[1]) : fmt::format("[{}]", shape[0]),
                  "expected"});
  }
}

TEST(Model, UnknownTensorsAreRefused) {
  TinyCheckpoint checkpoint;
  checkpoint.add_float("model.layers.0.mlp.extra.weight", {3});
  expect_parts(checkpoint.error(), {"1 tensors", "model.layers.0.mlp.extra.weight", "no place in this architecture"});
  for (int i = 0; i < 6; i++) checkpoint.add_float(fmt::format("more.{}", i), {1});
  expect_parts(checkpoint.error(), {"7 tensors", "more.0", "more.3", ", …"});
  EXPECT_EQ(checkpoint.error().find("more.4"), std::string::npos);  // five are named

  TinyCheckpoint norms("llama");  // a llama has no head norms: it is another model
  norms.add_float("model.layers.0.self_attn.q_norm.weight", {4});
  expect_parts(norms.error(), {"model.layers.0.self_attn.q_norm.weight"});
}

TEST(Model, ATiedOutputIsTheEmbedding) {
  TinyCheckpoint tied("llama", true), untied("llama", false);
  EXPECT_EQ(tied.make()->weights.entries().size() + 1, untied.make()->weights.entries().size());
  tied.add_float("lm_head.weight", {5, 6});  // some files hold it twice
  const auto model = tied.make();
  const Step step = model->forward(1, LogitsFor::last_token);
  EXPECT_EQ(std::get<LinearOp>(step.ops.back()).w.index, std::get<EmbedOp>(step.ops.front()).w.index);
}

TEST(Model, BiasesAreTakenWhereTheyAre) {
  TinyCheckpoint checkpoint;
  checkpoint.add_float("model.layers.0.self_attn.q_proj.bias", {12});
  checkpoint.add_float("model.layers.0.mlp.down_proj.bias", {6});
  const auto model = checkpoint.make();
  std::vector<std::string> biased;
  for (const Op& op : model->forward(1, LogitsFor::last_token).ops)
    if (const auto* linear = std::get_if<LinearOp>(&op); linear != nullptr && linear->bias)
      biased.push_back(model->weights.entries()[static_cast<size_t>(linear->bias.index)].name());
  EXPECT_EQ(biased,
            (std::vector<std::string>{"model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.down_proj.bias"}));
  checkpoint.add_float("model.layers.0.self_attn.q_proj.bias", {11});
  expect_parts(checkpoint.error(), {"q_proj.bias", "[11]", "[12] expected"});
}

TEST(Model, BiasesThatAreMissingThoughPromisedAreAnError) {
  for (const auto& [key, name] :
       {std::pair{"attention_bias", "self_attn.q_proj.bias"}, {"mlp_bias", "mlp.gate_proj.bias"}}) {
    TinyCheckpoint checkpoint;
    checkpoint.checkpoint->config[key] = true;
    expect_parts(checkpoint.error(), {name});
  }
}

// "linear w -> out" and the like, with the buffers' names.
std::vector<std::string> listing(const Model& model, const Step& step) {
  std::vector<std::string> lines;
  const auto slices = [&](const std::vector<Slice>& list) {
    std::string text;
    for (const Slice& s : list) text += " " + step.buffers[static_cast<size_t>(s.buffer)].name;
    return text;
  };
  for (const Op& op : step.ops) {
    const OpSlices s = op_slices(op);
    std::string line = std::string(op_name(op)) + slices(s.reads) + " ->" + slices(s.writes);
    if (const auto* linear = std::get_if<LinearOp>(&op))
      line += " by " + model.weights.entries()[static_cast<size_t>(linear->w.index)].name();
    lines.push_back(line);
  }
  return lines;
}

TEST(Model, ALlamaRecordsItsOpsInOrder) {
  TinyCheckpoint checkpoint;
  const auto model = checkpoint.make();
  const Step step = model->forward(3, LogitsFor::last_token);
  const std::string at = "model.layers.0.";
  EXPECT_EQ(listing(*model, step), (std::vector<std::string>{
                                       "embed -> x",
                                       "rms_norm x -> normed",
                                       "linear normed -> q by " + at + "self_attn.q_proj",
                                       "linear normed -> k by " + at + "self_attn.k_proj",
                                       "linear normed -> v by " + at + "self_attn.v_proj",
                                       "rope q -> q",
                                       "rope k -> k",
                                       "kv_append k v ->",
                                       "attention q -> attended",
                                       "linear attended x -> x by " + at + "self_attn.o_proj",
                                       "rms_norm x -> normed",
                                       "linear normed -> gate by " + at + "mlp.gate_proj",
                                       "linear normed -> up by " + at + "mlp.up_proj",
                                       "swiglu gate up -> hidden",
                                       "linear hidden x -> x by " + at + "mlp.down_proj",
                                       "select_logits x -> last",
                                       "rms_norm last -> last_normed",
                                       "linear last_normed -> logits by lm_head",
                                   }));
  EXPECT_EQ(step.M, 3);
  EXPECT_EQ(step.num_rows(Rows::tokens), 3);
  EXPECT_EQ(step.num_rows(Rows::logits), 1);
  EXPECT_EQ(model->forward(3, LogitsFor::all_tokens).num_rows(Rows::logits), 3);
  EXPECT_EQ(step.logits.width, 5);
  const auto& attention = std::get<AttentionOp>(step.ops[8]);
  EXPECT_EQ(attention.scale, 0.5f);  // 1 / sqrt(4)
  EXPECT_EQ(attention.num_heads, 3);
  EXPECT_EQ(attention.num_kv_heads, 1);
  ASSERT_EQ(model->kv_layers.size(), 1u);
  EXPECT_EQ(model->kv_layers[0].k_width, 4);
  EXPECT_EQ(model->kv_layers[0].v_width, 4);
}

TEST(Model, AQwen3NormalisesItsHeads) {
  TinyCheckpoint checkpoint("qwen3");
  const auto model = checkpoint.make();
  const Step step = model->forward(1, LogitsFor::last_token);
  const auto lines = listing(*model, step);
  EXPECT_EQ(std::vector(lines.begin() + 5, lines.begin() + 9),
            (std::vector<std::string>{"rms_norm q -> q", "rms_norm k -> k", "rope q -> q", "rope k -> k"}));
  EXPECT_EQ(std::get<RmsNormOp>(step.ops[5]).num_heads, 3);
  EXPECT_EQ(std::get<RmsNormOp>(step.ops[6]).num_heads, 1);
}

}  // namespace
}  // namespace nibble
