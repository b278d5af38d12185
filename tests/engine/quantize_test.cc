#include "engine/quantize.h"

#include "checkpoint/test_files.h"
#include "engine/text.h"
#include "goldens.h"

namespace nibble {
namespace {

const Golden& source() {
  static const Golden golden = read_golden(kModels / "llama-mlx-mxfp4");
  return golden;
}

std::map<std::string, QuantizedTensor> by_name(const std::vector<QuantizedTensor>& tensors) {
  std::map<std::string, QuantizedTensor> map;
  for (const QuantizedTensor& tensor : tensors) map.emplace(tensor.name, tensor);
  return map;
}

double rms_error(const std::vector<QuantizedTensor>& tensors) {
  double sum = 0;
  for (const QuantizedTensor& t : tensors) sum += t.relative_error * t.relative_error;
  return std::sqrt(sum / static_cast<double>(tensors.size()));
}

std::vector<float> logits_of(const std::filesystem::path& model, const Golden& golden, const char* backend = "cpu") {
  Engine engine = open_engine(model, backend);
  return forward(engine, golden.prompt, static_cast<int64_t>(golden.prompt.size()));
}

nlohmann::json config_of(const std::filesystem::path& folder) { return parse_json(read_bytes(folder / "config.json")); }

class Quantize : public testing::TestWithParam<FormatId> {
 protected:
  const TemporaryFolder temporary;
  const std::filesystem::path out = temporary.path() / "out";
  std::vector<QuantizedTensor> quantize_to_out(const std::filesystem::path& from, QuantizeOptions options = {}) {
    options.format = GetParam();
    options.num_threads = 2;
    return quantize(from, out, options);
  }
};

INSTANTIATE_TEST_SUITE_P(Formats, Quantize, testing::Values(FormatId::nvfp4, FormatId::mxfp4),
                         [](const auto& test) { return test.param == FormatId::nvfp4 ? "nvfp4" : "mxfp4"; });

TEST_P(Quantize, WhatIsWrittenRunsAndIsClose) {
  const Golden golden = read_golden(kModels / "llama-gguf-q8_0");
  const auto tensors = quantize_to_out(golden.model);
  EXPECT_EQ(tensors.size(), 2u + 2 * 7);
  const std::string_view name = format_name(GetParam());
  for (const QuantizedTensor& t : tensors) {
    const bool stays = t.name == "model.embed_tokens" || t.name == "lm_head";
    EXPECT_EQ(t.from, "Q8_0") << t.name;
    EXPECT_EQ(t.to, stays ? "F16" : name) << t.name;
    EXPECT_GT(t.relative_error, stays ? -1 : 0.05) << t.name;
    EXPECT_LT(t.relative_error, stays ? 1e-3 : 0.15) << t.name;  // of normal weights: 0.09 NVFP4, 0.115 MXFP4
  }
  EXPECT_EQ(by_name(tensors).at("model.layers.1.mlp.down_proj").bytes,
            GetParam() == FormatId::nvfp4 ? 96 * (48 + 6) : 96 * (48 + 3));

  const ModelFiles written = open_model(out);
  for (const WeightEntry& entry : written.model->weights.entries())
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
      EXPECT_EQ(matrix->info.format, matrix->request.name.hf.starts_with("model.layers.") ? GetParam() : FormatId::f16);
    }
  // Every matrix is a tenth off, and the logits are large: not the same model, but recognisably it.
  EXPECT_LT(mean_kl(golden.logits, logits_of(out, golden), 131), 1.5);
}

// Quantising what is in that format already changes nothing, whatever dialect it had.
TEST(Quantized, Mxfp4StaysAsItIs) {
  const TemporaryFolder folder;
  const auto out = folder.path() / "out";
  const auto tensors = quantize(source().model, out, {.format = FormatId::mxfp4});
  for (const QuantizedTensor& t : tensors) EXPECT_EQ(t.relative_error, 0) << t.name;
  EXPECT_EQ(logits_of(out, source(), "reference"), logits_of(source().model, source(), "reference"));
  EXPECT_EQ(config_of(out).at("quantization_config").at("quant_method"), "compressed-tensors");
  EXPECT_FALSE(config_of(out).contains("quantization"));  // MLX's
}

TEST_P(Quantize, ASearchIsBetterThanPlainRounding) {
  const double best = rms_error(quantize_to_out(kModels / "llama-gguf-q8_0" / "model.gguf", {.keep = {"embed|head"}}));
  std::filesystem::remove_all(out);
  const double plain = rms_error(quantize_to_out(kModels / "llama-gguf-q8_0" / "model.gguf",
                                                 {.search = ScaleSearch::plain, .keep = {"embed|head"}}));
  EXPECT_LT(best, 0.98 * plain);
}

TEST_P(Quantize, KeepLeavesWhatThePatternFinds) {
  const Golden golden = read_golden(kModels / "llama-gguf-q8_0");
  const auto tensors = by_name(quantize_to_out(golden.model, {.keep = {R"(layers\.0\..*down_proj$)", "v_proj"}}));
  EXPECT_EQ(tensors.at("model.layers.0.mlp.down_proj").to, "F16");
  EXPECT_EQ(tensors.at("model.layers.1.mlp.down_proj").to, format_name(GetParam()));
  EXPECT_EQ(tensors.at("model.layers.0.self_attn.v_proj").to, "F16");
  EXPECT_EQ(tensors.at("model.layers.1.self_attn.v_proj").to, "F16");
  const auto ignored = config_of(out).at("quantization_config").at("ignore").get<std::vector<std::string>>();
  for (const char* name : {"lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.v_proj"})
    EXPECT_EQ(std::ranges::count(ignored, name), 1) << name;
  EXPECT_EQ(ignored.size(), 5u);
  logits_of(out, golden);  // opens
}

TEST_P(Quantize, AllTakesTheOutputToo) {
  const auto tensors = by_name(quantize_to_out(kModels / "llama-gguf-q8_0" / "model.gguf", {.all = true}));
  EXPECT_EQ(tensors.at("lm_head").to, format_name(GetParam()));
  EXPECT_EQ(tensors.at("model.embed_tokens").to, "F16");
}

TEST_P(Quantize, AllUntiesATiedOutput) {
  const Golden golden = read_golden(kModels / "llama-gguf-q4_1");
  const auto tensors = by_name(quantize_to_out(golden.model, {.all = true}));
  EXPECT_EQ(tensors.at("lm_head").from, "Q4_1");
  EXPECT_EQ(tensors.at("lm_head").to, format_name(GetParam()));
  EXPECT_EQ(tensors.at("model.embed_tokens").to, "F16");
  EXPECT_EQ(config_of(out).at("tie_word_embeddings"), false);
  EXPECT_FALSE(open_model(out).model->config.tied_embeddings);
  EXPECT_LT(mean_kl(golden.logits, logits_of(out, golden), 131), 1.5);

  std::filesystem::remove_all(out);
  EXPECT_FALSE(by_name(quantize_to_out(golden.model)).contains("lm_head"));
  EXPECT_EQ(config_of(out).at("tie_word_embeddings"), true);
  std::filesystem::remove_all(out);
  EXPECT_FALSE(by_name(quantize_to_out(golden.model, {.all = true, .keep = {"head"}})).contains("lm_head"));
  EXPECT_EQ(config_of(out).at("tie_word_embeddings"), true);
}

// Types that are converted to run are decoded as they are here.
TEST_P(Quantize, ReadsEveryTypeOfGguf) {
  for (const auto& [model, types] :
       {std::pair<const char*, std::set<std::string>>{"llama-gguf-q4_k", {"Q4_K", "Q6_K", "Q5_0"}},
        {"llama-gguf-q5_k", {"Q5_K", "Q6_K", "Q5_1"}},
        {"llama-gguf-iq4_nl", {"IQ4_NL"}},
        {"llama-gguf-split", {"Q5_0"}}}) {
    SCOPED_TRACE(model);
    std::filesystem::remove_all(out);
    const Golden golden = read_golden(kModels / model);
    std::set<std::string> from;
    for (const QuantizedTensor& t : quantize_to_out(golden.model)) {
      from.insert(t.from);
      if (t.to == "F16") continue;
      EXPECT_TRUE(t.relative_error > 0 && t.relative_error < 0.2) << t.name << t.relative_error;
    }
    EXPECT_EQ(from, types);
    EXPECT_LT(mean_kl(golden.logits, logits_of(out, golden), 131), 2.5);
  }
}

TEST_P(Quantize, RowsThatAreNoWholeGroupsStay) {
  const Golden golden = read_golden(kModels / "llama-bf16");  // 90 and 75 columns, and 132 in o_proj
  for (const QuantizedTensor& t : quantize_to_out(golden.model)) {
    EXPECT_EQ(t.to, "BF16") << t.name;
    EXPECT_EQ(t.relative_error, 0) << t.name;
  }
  EXPECT_EQ(logits_of(out, golden), logits_of(golden.model, golden));
}

// Other engines fuse q, k and v, and gate and up, under one tensor scale.
TEST(Quantized, MatricesThatAreFusedElsewhereShareATensorScale) {
  const TemporaryFolder folder;
  const auto out = folder.path() / "out";
  quantize(kModels / "llama-gguf-q8_0" / "model.gguf", out, {.format = FormatId::nvfp4});
  const Checkpoint checkpoint = open_checkpoint(out);
  const auto scale = [&](const std::string& name) {
    return as_text(checkpoint.find("model.layers.1." + name + ".weight_scale_2")->bytes);
  };
  EXPECT_EQ(scale("self_attn.q_proj"), scale("self_attn.k_proj"));
  EXPECT_EQ(scale("self_attn.q_proj"), scale("self_attn.v_proj"));
  EXPECT_EQ(scale("mlp.gate_proj"), scale("mlp.up_proj"));
  EXPECT_NE(scale("mlp.gate_proj"), scale("mlp.down_proj"));
  EXPECT_NE(scale("self_attn.q_proj"), scale("self_attn.o_proj"));
}

// First out of whatever layout the file has into floats, which changes nothing; then those to FP4, which for MXFP4 is
// what they were.
TEST_P(Quantize, MixturesAndLatentAttention) {
  for (const char* name : {"mixtral-ct-mxfp4", "qwen3_moe-mlx-mxfp4", "glm4_moe-ct-mxfp4", "glm4_moe_lite-ct-mxfp4",
                           "deepseek_v3-ct-mxfp4"}) {
    SCOPED_TRACE(name);
    const Golden golden = read_golden(kModels / name);
    const std::vector<float> logits = logits_of(golden.model, golden, "reference");
    std::filesystem::remove_all(out);
    const auto floats = temporary.path() / name;
    quantize(golden.model, floats, {.format = GetParam(), .keep = {"."}});
    EXPECT_EQ(logits_of(floats, golden, "reference"), logits);

    const auto tensors = quantize_to_out(floats);
    const ModelFiles written = open_model(out);
    int64_t num_experts = 0;
    for (const QuantizedTensor& t : tensors) {
      const bool stays = t.name == "model.embed_tokens" || t.name == "lm_head" || t.name.ends_with("kv_b_proj") ||
                         t.name.ends_with("mlp.gate") || t.name.ends_with("block_sparse_moe.gate");
      EXPECT_EQ(t.to == format_name(GetParam()), !stays) << t.name << " " << t.to;
      EXPECT_EQ(t.relative_error == 0, stays || GetParam() == FormatId::mxfp4) << t.name << " " << t.relative_error;
      EXPECT_LT(t.relative_error, 0.1) << t.name;
      num_experts += t.name.find(".experts.*.") != std::string::npos;
    }
    EXPECT_EQ(num_experts, 3 * std::ranges::count(written.model->config.moe->is_sparse, true));
    for (const WeightEntry& entry : written.model->weights.entries())
      if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what);
          matrix != nullptr && matrix->request.is_experts && matrix->request.heads.head_rows == 0) {
        EXPECT_EQ(matrix->info.format, GetParam()) << entry.name();
      }
    if (GetParam() == FormatId::mxfp4) {
      EXPECT_EQ(logits_of(out, golden, "reference"), logits);
    } else {
      EXPECT_LT(mean_kl(golden.logits, logits_of(out, golden), 61), 0.5);
    }
  }
}

TEST(Quantized, EachExpertHasItsOwnTensorScale) {
  const TemporaryFolder folder;
  const auto out = folder.path() / "out";
  quantize(kModels / "mixtral-ct-nvfp4", out, {.format = FormatId::nvfp4});
  const Checkpoint checkpoint = open_checkpoint(out);
  const auto scale = [&](const std::string& name) {
    return as_text(checkpoint.find("model.layers.0.block_sparse_moe.experts." + name + ".weight_scale_2")->bytes);
  };
  EXPECT_EQ(scale("1.w1"), scale("1.w3"));  // fused elsewhere
  EXPECT_NE(scale("1.w1"), scale("1.w2"));
  EXPECT_NE(scale("0.w2"), scale("1.w2"));
}

TEST_P(Quantize, APredictionLayerIsNotWritten) {
  quantize_to_out(kModels / "glm4_moe-modelopt-nvfp4");
  EXPECT_EQ(config_of(kModels / "glm4_moe-modelopt-nvfp4").at("num_nextn_predict_layers"), 1);
  EXPECT_EQ(config_of(out).at("num_nextn_predict_layers"), 0);
  EXPECT_TRUE(open_model(out).source->unused_tensors().empty());
}

TEST_P(Quantize, MixturesWithoutAPlaceInSuchAFolderAreRefused) {
  const auto refusal = [&](const std::filesystem::path& from) {
    const std::string message = error_of([&] { quantize_to_out(from); });
    EXPECT_FALSE(std::filesystem::exists(out)) << message;
    return message;
  };
  expect_parts(refusal(kModels / "gpt_oss-mxfp4"), {"gpt_oss", "published in MXFP4"});
  expect_parts(refusal(kModels / "qwen3_moe-gguf-mxfp4" / "model.gguf"), {"GGUF", "Hugging Face folder"});
  expect_parts(refusal(kModels / "glm4_moe_lite-mlx-mxfp4"), {"model.layers.0.self_attn.kv_b_proj", "two parts"});
}

TEST_P(Quantize, AGgufsConfigurationIsTranslated) {
  for (const char* name : {"llama-gguf-mxfp4", "llama-gguf-q8_0", "llama-gguf-q4_0", "qwen3-gguf-mxfp4"}) {
    SCOPED_TRACE(name);
    std::filesystem::remove_all(out);
    const auto from = kModels / name / "model.gguf";
    quantize_to_out(from);
    const DecoderConfig was = open_model(from).model->config, is = open_model(out).model->config;
    EXPECT_EQ(is.architecture, was.architecture);
    EXPECT_EQ(is.head_dim, was.head_dim);
    EXPECT_EQ(is.num_kv_heads, was.num_kv_heads);
    EXPECT_EQ(is.rms_norm_eps, was.rms_norm_eps);
    EXPECT_EQ(is.tied_embeddings, was.tied_embeddings);
    EXPECT_EQ(is.max_position_embeddings, was.max_position_embeddings);
    EXPECT_EQ(is.rotation.scale, was.rotation.scale);
    ASSERT_EQ(is.rotation.inv_freq.size(), was.rotation.inv_freq.size());
    for (size_t i = 0; i < is.rotation.inv_freq.size(); i++)
      EXPECT_FLOAT_EQ(is.rotation.inv_freq[i], was.rotation.inv_freq[i]) << i;
    EXPECT_EQ(stop_tokens(open_checkpoint(out)), stop_tokens(open_checkpoint(from)));
  }
}

TEST_P(Quantize, BiasesAreWrittenAndNamedInTheConfiguration) {
  const auto vectors = [&](const char* name) {
    std::filesystem::remove_all(out);
    quantize_to_out(kModels / name / "model.gguf");
    return open_checkpoint(out).find("model.layers.1.self_attn.k_proj.bias") != nullptr;
  };
  EXPECT_TRUE(vectors("llama-gguf-mxfp4"));
  EXPECT_EQ(config_of(out).at("attention_bias"), true);
  EXPECT_EQ(config_of(out).at("mlp_bias"), false);
  EXPECT_FALSE(vectors("llama-gguf-q4_0"));
  EXPECT_EQ(config_of(out).at("attention_bias"), false);
  EXPECT_EQ(config_of(out).at("mlp_bias"), true);
}

TEST_P(Quantize, TheTextComesAlong) {
  for (const auto& from : {kModels / "llama-bf16", kModels / "llama-gguf-floats" / "model.gguf"}) {
    SCOPED_TRACE(from.string());
    std::filesystem::remove_all(out);
    quantize_to_out(from);
    const Checkpoint was = open_checkpoint(from), is = open_checkpoint(out);
    const Tokenizer then = *find_tokenizer(was), now = *find_tokenizer(is);
    const char* text = "the corn <|start|> naïve 日本語 word";
    EXPECT_EQ(now.encode(text, {.parse_special = true}), then.encode(text, {.parse_special = true}));
    EXPECT_EQ(now.bos(), then.bos());
    EXPECT_EQ(now.eos(), then.eos());
    EXPECT_EQ(find_chat_template(is), find_chat_template(was));
    EXPECT_EQ(stop_tokens(is), stop_tokens(was));
  }
}

TEST_P(Quantize, ASentencePieceModelComesAlong) {
  const auto from = temporary.path() / "from";
  std::filesystem::copy(kModels / "llama-bf16", from);
  std::filesystem::remove(from / "tokenizer.json");
  std::ofstream(from / "tokenizer.model") << "pieces";
  quantize_to_out(from);
  EXPECT_EQ(read_bytes(out / "tokenizer.model"), "pieces");
}

TEST_P(Quantize, AKeptMatrixThatHalvesCannotHoldIsRefused) {
  const Golden golden = read_golden(kModels / "llama-gguf-q8_0");
  const auto model = temporary.path() / "large.gguf";
  std::filesystem::copy(golden.model, model);
  const Checkpoint checkpoint = open_checkpoint(model);
  const Tensor* embedding = checkpoint.find("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  const auto offset = embedding->bytes.data() - checkpoint.files[0]->bytes().data();
  {
    std::fstream file(model, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset).write("\xFF\x7B\x02", 3);  // the first block's scale is 65504, its first code 2
  }
  expect_parts(error_of([&] { quantize_to_out(model); }), {"model.embed_tokens: ", "is beyond 65504", "F16"});
  EXPECT_FALSE(std::filesystem::exists(out / "config.json"));
}

TEST_P(Quantize, AFolderThatHoldsAModelIsRefused) {
  const auto message = [&](const std::filesystem::path& to) {
    return error_of([&] { quantize(source().model, to, {.format = GetParam()}); });
  };
  std::filesystem::create_directories(out);
  std::ofstream(out / "config.json") << "{}";
  expect_parts(message(out), {out.string(), "already holds a model"});
  std::filesystem::remove(out / "config.json");
  std::ofstream(out / "model.safetensors") << "weights without a configuration";
  expect_parts(message(out), {out.string(), "model.safetensors"});
  expect_parts(message(out / std::string(300, 'x')), {out.string(), "File name too long"});
  EXPECT_EQ(read_bytes(out / "model.safetensors"), "weights without a configuration");
}

TEST_P(Quantize, ErrorsLeaveNothingBehind) {
  const auto message = [&](const std::filesystem::path& from, const QuantizeOptions& options) {
    const std::string text = error_of([&] { quantize_to_out(from, options); });
    EXPECT_FALSE(std::filesystem::exists(out)) << text;
    return text;
  };
  expect_parts(message(temporary.path() / "none", {}), {"none"});
  expect_parts(message(source().model, {.keep = {"[a-"}}), {"[a-"});
  const auto unreadable = temporary.path() / "unreadable";
  std::filesystem::copy(kModels / "llama-bf16", unreadable);
  std::filesystem::create_directory(unreadable / "special_tokens_map.json");
  expect_parts(message(unreadable, {}), {"special_tokens_map.json", "not a regular file"});

  // A scale that is no number in the last layer: found while writing.
  const Golden golden = read_golden(kModels / "llama-ct-mxfp4");
  const auto broken = temporary.path() / "broken";
  std::filesystem::copy(golden.folder, broken);
  const Checkpoint checkpoint = open_checkpoint(broken);
  const Tensor* scales = checkpoint.find("model.layers.1.mlp.up_proj.weight_scale");
  ASSERT_NE(scales, nullptr);
  const auto offset = scales->bytes.data() - checkpoint.files[0]->bytes().data();
  {
    std::fstream file(broken / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset + 3).put('\xFF');
  }
  const std::string text = error_of([&] { quantize_to_out(broken); });
  expect_parts(text, {"model.layers.1.mlp.up_proj"});
  EXPECT_FALSE(std::filesystem::exists(out / "config.json"));
  EXPECT_FALSE(std::filesystem::exists(out / "model.safetensors"));
}

TEST(Quantized, OtherFormatsAreRefused) {
  const TemporaryFolder folder;
  expect_parts(error_of([&] { quantize(source().model, folder.path() / "out", {.format = FormatId::q8_0}); }),
               {"NVFP4 or MXFP4", "Q8_0"});
}

TEST(Quantized, ProgressCountsUpToAll) {
  const TemporaryFolder folder;
  std::vector<std::pair<int64_t, int64_t>> heard;
  quantize(source().model, folder.path() / "out",
           {.format = FormatId::mxfp4, .progress = [&](int64_t done, int64_t all) { heard.emplace_back(done, all); }});
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard.back().first, heard.back().second);
}

TEST_P(Quantize, TheNumberOfThreadsChangesNoByte) {
  quantize_to_out(kModels / "llama-gguf-q8_0" / "model.gguf");
  const auto other = temporary.path() / "other";
  quantize(kModels / "llama-gguf-q8_0" / "model.gguf", other, {.format = GetParam(), .num_threads = 3});
  EXPECT_EQ(read_bytes(out / "model.safetensors"), read_bytes(other / "model.safetensors"));
}

}  // namespace
}  // namespace nibble
