// Mixtures of experts and latent attention: what the architectures ask for, what they refuse, and what they record.
#include <cmath>
#include <set>

#include "checkpoint/test_files.h"
#include "models/model.h"
#include "models/shapes.h"
#include "weights/memory_checkpoint.h"
#include "weights/random_source.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// What the model's weights would be called, and the model; all weights there may be are there.
struct RandomModel {
  explicit RandomModel(Checkpoint c) : checkpoint(std::move(c)) {
    source = make_random_source({.format = [](const MatrixRequest&) { return FormatId::bf16; }});
    model = make_model(checkpoint, *source);
  }
  std::set<std::string> names(bool gguf = false) const {
    std::set<std::string> names;
    for (const WeightEntry& entry : model->weights.entries()) {
      const auto* matrix = std::get_if<MatrixEntry>(&entry.what);
      const TensorName& name = matrix ? matrix->request.name : std::get<VectorRequest>(entry.what).name;
      names.insert(gguf ? name.gguf : name.hf);
      if (matrix != nullptr && matrix->request.heads.head_rows > 0)
        names.insert(gguf ? matrix->request.heads.alone.gguf : matrix->request.heads.alone.hf);
    }
    return names;
  }
  // The ops of layer `l`, which begins with the norm before its attention.
  std::vector<std::string> layer_ops(int64_t l) const {
    std::vector<std::string> ops;
    int64_t layer = -1;
    const Step step = model->forward(1, LogitsFor::last_token);
    for (const Op& op : step.ops) {
      const auto* norm = std::get_if<RmsNormOp>(&op);
      if (norm != nullptr &&
          model->weights.entries()[static_cast<size_t>(norm->weight.index)].name().ends_with("input_layernorm.weight"))
        layer++;
      if (layer == l) ops.emplace_back(op_name(op));
    }
    return ops;
  }

  Checkpoint checkpoint;
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<Model> model;
};

template <class T>
std::vector<T> ops_of(const Model& model) {
  std::vector<T> found;
  for (const Op& op : model.forward(1, LogitsFor::last_token).ops)
    if (const auto* o = std::get_if<T>(&op)) found.push_back(*o);
  return found;
}

TEST(MoeModels, Qwen3MoeHasExpertsInAllLayersButThoseNamed) {
  Checkpoint checkpoint = shape_checkpoint("qwen3-30b-a3b", 4);
  checkpoint.config["mlp_only_layers"] = {2};
  const RandomModel m(std::move(checkpoint));
  EXPECT_EQ(m.layer_ops(1), (std::vector<std::string>{"rms_norm", "linear", "linear", "linear", "rms_norm", "rms_norm",
                                                      "rope", "rope", "kv_append", "attention", "linear", "rms_norm",
                                                      "linear", "route", "moe_gate_up", "moe_down"}));
  EXPECT_EQ(ops_of<RouteOp>(*m.model).size(), 3u);
  EXPECT_EQ(ops_of<SwigluOp>(*m.model).size(), 1u);
  const RouteOp route = ops_of<RouteOp>(*m.model).front();
  EXPECT_EQ(route.experts.width, 8);
  EXPECT_EQ(route.logits.width, 128);
  EXPECT_TRUE(route.normalise);
  EXPECT_TRUE(m.names().contains("model.layers.0.mlp.experts.*.gate_proj"));
  EXPECT_TRUE(m.names().contains("model.layers.2.mlp.gate_proj"));
  EXPECT_TRUE(m.names(true).contains("blk.0.ffn_gate_exps"));

  Checkpoint every_second = shape_checkpoint("qwen3-30b-a3b", 4);
  every_second.config["decoder_sparse_step"] = 2;
  every_second.config.erase("norm_topk_prob");  // which means false
  const RandomModel n(std::move(every_second));
  EXPECT_FALSE(n.model->config.is_sparse(0));
  EXPECT_TRUE(n.model->config.is_sparse(1));
  EXPECT_FALSE(ops_of<RouteOp>(*n.model).front().normalise);
}

TEST(MoeModels, MixtralsNamesAndWindow) {
  Checkpoint checkpoint = shape_checkpoint("mixtral-8x7b", 1);
  checkpoint.config["sliding_window"] = 4096;
  const RandomModel m(std::move(checkpoint));
  for (const char* name : {"gate", "experts.*.w1", "experts.*.w2", "experts.*.w3"})
    EXPECT_TRUE(m.names().contains(std::string("model.layers.0.block_sparse_moe.") + name)) << name;
  EXPECT_EQ(ops_of<AttentionOp>(*m.model).front().window, 4096);
  EXPECT_EQ(m.model->kv_layers.front().window, 4096);
  EXPECT_EQ(RandomModel(shape_checkpoint("mixtral-8x7b", 1)).model->kv_layers.front().window, 0);
}

TEST(MoeModels, GptOssAlternatesWindowsAndHasSinksAndBiases) {
  const RandomModel m(shape_checkpoint("gpt-oss-20b", 3));
  std::vector<int64_t> windows;
  for (const AttentionOp& op : ops_of<AttentionOp>(*m.model)) {
    windows.push_back(op.window);
    EXPECT_TRUE(op.sinks);
  }
  EXPECT_EQ(windows, (std::vector<int64_t>{128, 0, 128}));
  const MoeGateUpOp gate_up = ops_of<MoeGateUpOp>(*m.model).front();
  EXPECT_EQ(gate_up.activation, ExpertActivation::clamped);
  EXPECT_EQ(gate_up.alpha, 1.702f);
  EXPECT_EQ(gate_up.limit, 7.0f);
  for (const char* name :
       {"self_attn.sinks", "self_attn.o_proj.bias", "mlp.router.bias", "mlp.experts.*.gate_proj.bias",
        "mlp.experts.*.up_proj.bias", "mlp.experts.*.down_proj.bias"})
    EXPECT_TRUE(m.names().contains(std::string("model.layers.0.") + name)) << name;
  for (const char* name : {"attn_sinks.weight", "post_attention_norm.weight", "ffn_gate_inp.bias", "ffn_up_exps.bias"})
    EXPECT_TRUE(m.names(true).contains(std::string("blk.0.") + name)) << name;
  EXPECT_NEAR(m.model->config.rotation.scale, 0.1 * std::log(32.0) + 1, 1e-6);
}

Checkpoint glm4_moe() {
  Checkpoint c{.container = Container::safetensors, .path = "model"};
  c.config = {{"model_type", "glm4_moe"},
              {"hidden_size", 64},
              {"intermediate_size", 96},
              {"num_hidden_layers", 3},
              {"num_attention_heads", 4},
              {"num_key_value_heads", 2},
              {"head_dim", 16},
              {"vocab_size", 10},
              {"partial_rotary_factor", 0.5},
              {"attention_bias", true},
              {"n_routed_experts", 8},
              {"num_experts_per_tok", 2},
              {"moe_intermediate_size", 32},
              {"n_shared_experts", 2},
              {"first_k_dense_replace", 1},
              {"routed_scaling_factor", 1.5},
              {"use_qk_norm", true}};
  return c;
}

TEST(MoeModels, Glm4MoeIsDenseFirstAndSharesAnExpert) {
  const RandomModel m(glm4_moe());
  EXPECT_FALSE(m.model->config.is_sparse(0));
  EXPECT_EQ(m.model->config.rotation.inv_freq.size(), 4u);
  EXPECT_EQ(m.model->config.moe->shared_intermediate_size, 64);
  EXPECT_EQ(m.layer_ops(1), (std::vector<std::string>{"rms_norm", "linear",   "linear",      "linear",    "rms_norm",
                                                      "rms_norm", "rope",     "rope",        "kv_append", "attention",
                                                      "linear",   "rms_norm", "linear",      "route",     "linear",
                                                      "linear",   "swiglu",   "moe_gate_up", "linear",    "moe_down"}));
  const RouteOp route = ops_of<RouteOp>(*m.model).front();
  EXPECT_EQ(route.scores, RouterScores::sigmoid);
  EXPECT_EQ(route.scale, 1.5f);
  EXPECT_TRUE(route.correction_bias);
  const auto names = m.names();
  EXPECT_TRUE(names.contains("model.layers.0.self_attn.v_proj.bias"));
  EXPECT_FALSE(names.contains("model.layers.0.self_attn.o_proj.bias"));
  EXPECT_TRUE(names.contains("model.layers.1.mlp.gate.e_score_correction_bias"));
  EXPECT_TRUE(m.names(true).contains("blk.1.exp_probs_b.bias"));
  Checkpoint plain = glm4_moe();
  plain.config["use_qk_norm"] = false;
  EXPECT_FALSE(RandomModel(std::move(plain)).names().contains("model.layers.0.self_attn.q_norm.weight"));
}

TEST(MoeModels, LatentAttentionCachesLatents) {
  const RandomModel m(shape_checkpoint("glm-4.7-flash", 2));
  EXPECT_EQ(m.layer_ops(0),
            (std::vector<std::string>{"rms_norm", "linear", "linear", "rms_norm", "linear", "rms_norm", "rope",
                                      "kv_append", "rope", "head_linear", "latent_attention", "head_linear", "linear",
                                      "rms_norm", "linear", "linear", "swiglu", "linear"}));
  EXPECT_EQ(m.model->kv_layers.front().k_width, 576);
  EXPECT_EQ(m.model->kv_layers.front().v_width, 0);
  EXPECT_FLOAT_EQ(ops_of<LatentAttentionOp>(*m.model).front().scale, 1 / 16.0f);
  const std::vector<RopeOp> ropes = ops_of<RopeOp>(*m.model);
  EXPECT_EQ(ropes[1].first, 192);
  EXPECT_TRUE(ropes[1].interleaved);

  Checkpoint plain = shape_checkpoint("glm-4.7-flash", 1);
  plain.config["q_lora_rank"] = nullptr;
  plain.config["rope_interleave"] = false;
  const RandomModel n(std::move(plain));
  EXPECT_TRUE(n.names().contains("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(ops_of<RopeOp>(*n.model).front().interleaved);
}

TEST(MoeModels, YarnStretchesTheScoresOfDeepseek) {
  Checkpoint checkpoint = shape_checkpoint("glm-4.7-flash", 1);
  checkpoint.config["model_type"] = "deepseek_v3";
  checkpoint.config["rope_scaling"] = {{"type", "yarn"},
                                       {"factor", 40},
                                       {"mscale", 1.0},
                                       {"mscale_all_dim", 1.0},
                                       {"beta_fast", 32},
                                       {"beta_slow", 1},
                                       {"original_max_position_embeddings", 4096}};
  const RandomModel m(std::move(checkpoint));
  const double mscale = 0.1 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(ops_of<LatentAttentionOp>(*m.model).front().scale, static_cast<float>(mscale * mscale / 16));
  EXPECT_FLOAT_EQ(m.model->config.rotation.scale, 1.0f);
}

struct Refusal {
  const char* key;
  Json value;
  std::vector<std::string> parts;
};

TEST(MoeModels, WhatIsNotKnownIsRefusedByName) {
  for (const Refusal& r : std::vector<Refusal>{
           {"topk_method", "greedy", {"topk_method is \"greedy\"", "noaux_tc is implemented"}},
           {"scoring_func", "softmax", {"scoring_func is \"softmax\"", "sigmoid is implemented"}},
           {"moe_layer_freq", 2, {"moe_layer_freq is 2"}},
           {"hidden_act", "gelu", {"hidden_act is \"gelu\"", "silu"}},
           {"n_group", 3, {"n_group is 3", "a divisor of the 8 experts"}},
           {"topk_group", 2, {"topk_group is 2", "from 1 to 1"}},
           {"num_experts_per_tok", 9, {"num_experts_per_tok is 9", "from 1 to 8"}},
           {"num_experts_per_tok", 0, {"num_experts_per_tok is 0"}},
           {"n_routed_experts", 0, {"n_routed_experts is 0"}},
           {"n_routed_experts", "8", {"n_routed_experts is \"8\""}},
           {"first_k_dense_replace", 4, {"first_k_dense_replace is 4", "from 0 to 3"}},
           {"first_k_dense_replace", nullptr, {"first_k_dense_replace is missing"}},
           {"mlp_layer_types", {"dense", "sparse"}, {"mlp_layer_types", "a list of 3 texts"}},
           {"mlp_layer_types", {"dense", "sparse", "mamba"}, {"mlp_layer_types", "dense and sparse are implemented"}},
           {"rope_scaling", {{"rope_type", "longrope"}}, {"rope_type is \"longrope\""}},
       }) {
    Checkpoint checkpoint = glm4_moe();
    checkpoint.config[r.key] = r.value;
    const std::string error = input_error([&] { RandomModel(std::move(checkpoint)); });
    for (const std::string& part : r.parts) EXPECT_NE(error.find(part), std::string::npos) << r.key << ": " << error;
  }
}

TEST(MoeModels, GroupsMustHoldTheExpertsOfAToken) {
  Checkpoint checkpoint = glm4_moe();
  checkpoint.config["n_group"] = 4;
  checkpoint.config["topk_group"] = 1;
  checkpoint.config["num_experts_per_tok"] = 3;
  EXPECT_NE(input_error([&] { RandomModel(std::move(checkpoint)); }).find("at least the 3 experts"), std::string::npos);
}

TEST(MoeModels, OtherFamiliesRefusals) {
  for (const auto& [shape, r] : std::vector<std::pair<std::string, Refusal>>{
           {"gpt-oss-20b",
            {"layer_types", {"sliding_attention", "linear_attention"}, {"layer_types", "full_attention"}}},
           {"gpt-oss-20b", {"sliding_window", nullptr, {"sliding_window is missing"}}},
           {"gpt-oss-20b", {"swiglu_limit", 0, {"swiglu_limit is 0"}}},
           {"gpt-oss-20b", {"swiglu_limit", 1e300, {"swiglu_limit is 1e+300", "a positive number within float32"}}},
           {"gpt-oss-20b", {"swiglu_alpha", -1e300, {"swiglu_alpha is -1e+300", "a number within float32"}}},
           {"glm-4.7-flash", {"routed_scaling_factor", 1e300, {"routed_scaling_factor is 1e+300"}}},
           {"glm-4.7-flash", {"routed_scaling_factor", 1e-300, {"routed_scaling_factor is 1e-300"}}},
           {"glm-4.7-flash", {"routed_scaling_factor", -1.8, {"routed_scaling_factor is -1.8", "a positive number"}}},
           {"glm-4.7-flash",
            {"rope_scaling",
             {{"rope_type", "yarn"}, {"factor", 40.0}, {"mscale_all_dim", 1e300}},
             {"the scale of latent attention inf"}}},
           {"qwen3-30b-a3b", {"mlp_only_layers", {7}, {"mlp_only_layers", "below 2"}}},
           {"qwen3-30b-a3b", {"use_sliding_window", true, {"use_sliding_window"}}},
           {"mixtral-8x7b", {"sliding_window", -1, {"sliding_window is -1"}}},
           {"glm-4.7-flash", {"kv_lora_rank", 0, {"kv_lora_rank is 0"}}},
           {"glm-4.7-flash", {"qk_rope_head_dim", 63, {"even"}}},
           {"glm-4.7-flash", {"v_head_dim", nullptr, {"v_head_dim is missing"}}},
       }) {
    Checkpoint checkpoint = shape_checkpoint(shape, 2);
    checkpoint.config[r.key] = r.value;
    const std::string error = input_error([&] { RandomModel(std::move(checkpoint)); });
    for (const std::string& part : r.parts) EXPECT_NE(error.find(part), std::string::npos) << r.key << ": " << error;
  }
}

TEST(MoeModels, AGgufOfGptOssHasNoDivisorsOfItsRotation) {
  Checkpoint c{.container = Container::gguf, .path = "model.gguf"};
  c.config = {{"general.architecture", "gpt-oss"},
              {"gpt-oss.block_count", 2},
              {"gpt-oss.context_length", 64},
              {"gpt-oss.embedding_length", 32},
              {"gpt-oss.feed_forward_length", 32},
              {"gpt-oss.attention.head_count", 2},
              {"gpt-oss.attention.layer_norm_rms_epsilon", 1e-5},
              {"gpt-oss.attention.sliding_window", 8},
              {"gpt-oss.vocab_size", 16},
              {"gpt-oss.expert_count", 4},
              {"gpt-oss.expert_used_count", 2}};
  EXPECT_FALSE(RandomModel(c).model->config.rope.truncate);
  const std::vector<float> divisors(8, 2.0f);
  const auto* first = reinterpret_cast<const uint8_t*>(divisors.data());
  c.tensors["rope_freqs.weight"] = {"rope_freqs.weight", DType::f32, {8}, {first, 4 * divisors.size()}};
  EXPECT_NE(input_error([&] { RandomModel{c}; }).find("model.gguf: rope_freqs.weight: divisors"), std::string::npos);
}

Checkpoint deepseek2() {
  Checkpoint c{.container = Container::gguf, .path = "model.gguf"};
  c.config = {{"general.architecture", "deepseek2"},
              {"deepseek2.block_count", 4},
              {"deepseek2.nextn_predict_layers", 1},
              {"deepseek2.context_length", 4096},
              {"deepseek2.embedding_length", 96},
              {"deepseek2.feed_forward_length", 160},
              {"deepseek2.attention.head_count", 4},
              {"deepseek2.attention.head_count_kv", 1},
              {"deepseek2.attention.layer_norm_rms_epsilon", 1e-5},
              {"deepseek2.expert_count", 8},
              {"deepseek2.expert_used_count", 3},
              {"deepseek2.leading_dense_block_count", 1},
              {"deepseek2.vocab_size", 512},
              {"deepseek2.attention.q_lora_rank", 64},
              {"deepseek2.attention.kv_lora_rank", 64},
              {"deepseek2.attention.key_length", 80},
              {"deepseek2.attention.value_length", 64},
              {"deepseek2.attention.key_length_mla", 40},
              {"deepseek2.attention.value_length_mla", 32},
              {"deepseek2.expert_feed_forward_length", 64},
              {"deepseek2.rope.dimension_count", 16}};
  return c;
}

TEST(MoeModels, GgufMetadataOfDeepseek) {
  const RandomModel m(deepseek2());
  EXPECT_EQ(m.model->config.num_layers, 3);  // the last of four predicts further tokens
  EXPECT_EQ(m.model->config.mla->qk_nope_head_dim, 24);
  EXPECT_EQ(m.model->config.mla->v_head_dim, 32);
  EXPECT_EQ(m.model->config.moe->scores, RouterScores::sigmoid);  // without expert_gating_func, too
  for (const char* name : {"attn_k_b", "attn_v_b", "attn_kv_a_mqa", "attn_q_a_norm.weight", "attn_kv_a_norm.weight"})
    EXPECT_TRUE(m.names(true).contains(std::string("blk.0.") + name)) << name;

  Checkpoint yarn = deepseek2();
  yarn.config["deepseek2.rope.scaling.type"] = "yarn";
  yarn.config["deepseek2.rope.scaling.factor"] = 40.0;
  yarn.config["deepseek2.rope.scaling.original_context_length"] = 4096;
  yarn.config["deepseek2.rope.scaling.yarn_log_multiplier"] = 0.1;  // a tenth of mscale_all_dim
  const RandomModel n(std::move(yarn));
  const double mscale = 0.1 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(n.model->config.mla->scale, static_cast<float>(mscale * mscale / std::sqrt(40.0)));
  EXPECT_FLOAT_EQ(n.model->config.rotation.scale, 1.0f);

  // Without the key there is no mscale_all_dim: YaRN is as in any other model, and scores are not stretched.
  yarn = deepseek2();
  yarn.config["deepseek2.rope.scaling.type"] = "yarn";
  yarn.config["deepseek2.rope.scaling.factor"] = 40.0;
  const RandomModel plain(std::move(yarn));
  EXPECT_FLOAT_EQ(plain.model->config.mla->scale, static_cast<float>(1 / std::sqrt(40.0)));
  EXPECT_FLOAT_EQ(plain.model->config.rotation.scale, static_cast<float>(mscale));

  // Nor are expert weights normalised unless a key says so.
  EXPECT_FALSE(m.model->config.moe->normalise);
  Checkpoint normalised = deepseek2();
  normalised.config["deepseek2.expert_weights_norm"] = true;
  EXPECT_TRUE(RandomModel(std::move(normalised)).model->config.moe->normalise);

  // Files from before absorption.
  Checkpoint old = deepseek2();
  old.config.erase("deepseek2.attention.key_length_mla");
  old.config.erase("deepseek2.attention.value_length_mla");
  old.config["deepseek2.attention.key_length"] = 41;
  old.config["deepseek2.attention.value_length"] = 33;
  const RandomModel from_old(std::move(old));
  EXPECT_EQ(from_old.model->config.mla->qk_nope_head_dim, 25);
  EXPECT_EQ(from_old.model->config.mla->v_head_dim, 33);

  for (const Refusal& r : std::vector<Refusal>{
           {"deepseek2.expert_gating_func", 1, {"expert_gating_func is 1", "2 (sigmoid)"}},
           {"deepseek2.nextn_predict_layers", 4, {"nextn_predict_layers is 4"}},
           {"deepseek2.attention.key_length_mla", 16, {"key_length_mla is 16"}},
           {"deepseek2.expert_group_count", 5, {"expert_group_count is 5"}},
       }) {
    Checkpoint checkpoint = deepseek2();
    checkpoint.config[r.key] = r.value;
    const std::string error = input_error([&] { RandomModel(std::move(checkpoint)); });
    for (const std::string& part : r.parts) EXPECT_NE(error.find(part), std::string::npos) << r.key << ": " << error;
  }
}

TEST(MoeModels, AGgufLlamaWithExpertsIsAMixtral) {
  Checkpoint c{.container = Container::gguf, .path = "model.gguf"};
  c.config = {{"general.architecture", "llama"},
              {"llama.block_count", 1},
              {"llama.context_length", 64},
              {"llama.embedding_length", 32},
              {"llama.feed_forward_length", 48},
              {"llama.attention.head_count", 2},
              {"llama.attention.layer_norm_rms_epsilon", 1e-5},
              {"llama.vocab_size", 16},
              {"llama.expert_count", 4},
              {"llama.expert_used_count", 2}};
  const RandomModel m(c);
  EXPECT_TRUE(m.names(true).contains("blk.0.ffn_down_exps"));
  EXPECT_EQ(m.model->config.moe->intermediate_size, 48);
  c.config["llama.expert_count"] = 0;
  EXPECT_TRUE(RandomModel(c).names(true).contains("blk.0.ffn_down"));
}

}  // namespace
}  // namespace nibble
