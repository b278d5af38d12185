// The golden checkpoints, where they are: every matrix of the dense models, and the values of some matrices of all.
#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>

#include "checkpoint/json_file.h"
#include "memory_checkpoint.h"

namespace nibble {
namespace {

const std::filesystem::path kFixtures = NIBBLE_FIXTURES;

bool has_fixtures() {
  if (std::filesystem::exists(kFixtures / "checkpoints")) return true;
  std::printf("no golden checkpoints in %s: nothing tested\n", kFixtures.c_str());
  return false;
}

std::unique_ptr<WeightSource> open(const std::string& name) {
  return make_importer(std::make_shared<const Checkpoint>(open_checkpoint(kFixtures / name)));
}

struct DenseShape {
  int64_t hidden, intermediate, q, kv, vocabulary;
  int q_heads = 0, kv_heads = 0;  // whose rows a GGUF file permutes
  int64_t head_dim = 0;           // of q_norm and k_norm; 0: there are none
};

void read_dense_model(WeightSource& source, const DenseShape& s, bool is_tied) {
  const auto read = [&](TensorName name, int64_t N, int64_t K, int heads = 0) {
    const MatrixRequest request{.name = std::move(name), .N = N, .K = K, .gguf_permuted_heads = heads};
    const CanonicalWeight weight = source.read(request);
    EXPECT_EQ(source.describe(request).bytes, static_cast<int64_t>(weight.codes.size() + weight.scales.size()));
    for (float value : decoded(weight)) ASSERT_TRUE(std::isfinite(value));
  };
  const auto read_vector = [&](const TensorName& name, int64_t size) {
    EXPECT_TRUE(source.has_vector(name));
    for (float value : source.read_vector({.name = name, .size = size})) ASSERT_TRUE(std::isfinite(value));
  };
  read({"model.embed_tokens", "token_embd"}, s.vocabulary, s.hidden);
  if (!is_tied) read({"lm_head", "output"}, s.vocabulary, s.hidden);
  read_vector({"model.norm.weight", "output_norm.weight"}, s.hidden);
  for (int layer = 0; layer < 3; layer++) {
    const auto name = [&](const std::string& hf, const std::string& gguf) {
      return TensorName{fmt::format("model.layers.{}.{}", layer, hf), fmt::format("blk.{}.{}", layer, gguf)};
    };
    read(name("self_attn.q_proj", "attn_q"), s.q, s.hidden, s.q_heads);
    read(name("self_attn.k_proj", "attn_k"), s.kv, s.hidden, s.kv_heads);
    read(name("self_attn.v_proj", "attn_v"), s.kv, s.hidden);
    read(name("self_attn.o_proj", "attn_output"), s.hidden, s.q);
    read(name("mlp.gate_proj", "ffn_gate"), s.intermediate, s.hidden);
    read(name("mlp.up_proj", "ffn_up"), s.intermediate, s.hidden);
    read(name("mlp.down_proj", "ffn_down"), s.hidden, s.intermediate);
    read_vector(name("input_layernorm.weight", "attn_norm.weight"), s.hidden);
    read_vector(name("post_attention_layernorm.weight", "ffn_norm.weight"), s.hidden);
    if (s.head_dim == 0) continue;
    read_vector(name("self_attn.q_norm.weight", "attn_q_norm.weight"), s.head_dim);
    read_vector(name("self_attn.k_norm.weight", "attn_k_norm.weight"), s.head_dim);
  }
  EXPECT_EQ(source.unknown_tensors(), std::vector<std::string>{});
}

TEST(Fixtures, EveryMatrixOfTheDenseModelsIsRead) {
  if (!has_fixtures()) return;
  const DenseShape llama{
      .hidden = 96, .intermediate = 224, .q = 192, .kv = 64, .vocabulary = 512, .q_heads = 6, .kv_heads = 2};
  for (const char* name : {"checkpoints/llama-bf16", "checkpoints/llama-modelopt-nvfp4", "checkpoints/llama-mlx-mxfp4",
                           "gguf/llama-gguf-mxfp4/model.gguf"}) {
    SCOPED_TRACE(name);
    read_dense_model(*open(name), llama, /*is_tied=*/true);
  }
  const DenseShape qwen3{.hidden = 128, .intermediate = 192, .q = 256, .kv = 128, .vocabulary = 512, .head_dim = 64};
  read_dense_model(*open("checkpoints/qwen3-ct-mxfp4"), qwen3, /*is_tied=*/false);
}

struct WeightedSum {
  double sum = 0.0, magnitude = 0.0;
};

// Each tensor by its own shape, stacked experts among them.
TEST(Fixtures, EveryTensorOfEveryGgufIsRead) {
  if (!has_fixtures()) return;
  for (const auto& entry : std::filesystem::directory_iterator(kFixtures / "gguf")) {
    const auto checkpoint = std::make_shared<const Checkpoint>(open_checkpoint(entry.path() / "model.gguf"));
    const auto source = make_importer(checkpoint);
    for (const auto& [name, tensor] : checkpoint->tensors) {
      SCOPED_TRACE(fmt::format("{} {}", entry.path().string(), name));
      const size_t rank = tensor.shape.size();
      std::vector<float> values;
      if (name.ends_with(".weight") && rank >= 2) {
        values = decoded(source->read({.name = {"", name.substr(0, name.size() - 7)},
                                       .E = rank == 3 ? tensor.shape[0] : 1,
                                       .N = tensor.shape[rank - 2],
                                       .K = tensor.shape[rank - 1],
                                       .is_experts = rank == 3}));
      } else if (rank > 0 && !name.ends_with("scale")) {
        values = source->read_vector({.name = {"", name},
                                      .size = tensor.shape[rank - 1],
                                      .E = rank == 2 ? tensor.shape[0] : 1,
                                      .is_experts = rank == 2});
      }
      for (float value : values) ASSERT_TRUE(std::isfinite(value));
    }
    EXPECT_EQ(source->unknown_tensors(), std::vector<std::string>{});
  }
}

// Of value[i] * (i % 1009 + 1), which no two orders of the values share.
WeightedSum weighted_sum(const std::vector<float>& values) {
  WeightedSum all;
  int64_t i = 0;
  for (float value : values) {
    const double term = value * static_cast<double>(i++ % 1009 + 1);
    all.sum += term;
    all.magnitude += std::fabs(term);
  }
  return all;
}

// checkpoint_sums.json is made by tools/make_fixture_sums.py, with numpy alone.
TEST(Fixtures, EveryTensorOfEveryFolderMeansWhatNumpySays) {
  if (!has_fixtures()) return;
  const auto folders =
      read_json_file(std::filesystem::path(NIBBLE_TEST_DATA) / "checkpoint_sums.json", RepeatedKeys::rejected);
  EXPECT_EQ(folders.size(), 12u);
  for (const auto& [folder, tensors] : folders.items()) {
    const auto source = open("checkpoints/" + folder);
    for (const auto& [name, entry] : tensors.items()) {
      SCOPED_TRACE(fmt::format("{} {}", folder, name));
      const bool is_experts = name.find('*') != std::string::npos;
      const int64_t E = is_experts ? entry[0].get<int64_t>() : 1;
      WeightedSum found;
      if (entry.size() == 4) {
        const MatrixRequest request{.name = {name, ""}, .E = E, .N = entry[1], .K = entry[2], .is_experts = is_experts};
        found = weighted_sum(decoded(source->read(request)));
      } else {
        EXPECT_TRUE(source->has_vector({name, ""}));
        found =
            weighted_sum(source->read_vector({.name = {name, ""}, .size = entry[1], .E = E, .is_experts = is_experts}));
      }
      EXPECT_NEAR(found.sum, entry.back().get<double>(), 1e-9 * found.magnitude);  // tensor scales round once
      EXPECT_GT(found.magnitude, 0.0);
    }
    EXPECT_EQ(source->unknown_tensors(), std::vector<std::string>{}) << folder;
  }
}

// Sums that gguf-py gives on the same files, with llama.cpp's permutation of q and k undone, and some of numpy and
// torch.
struct SumCase {
  const char* file;
  const char* tensor;
  int64_t E, N, K;
  int permuted_heads;
  double expected;
};

TEST(Fixtures, ValuesAreThoseOfIndependentReaders) {
  if (!has_fixtures()) return;
  for (const SumCase& c : {
           SumCase{"checkpoints/llama-bf16", "model.layers.1.mlp.down_proj", 1, 96, 224, 0, 14.187393069267273},
           SumCase{"checkpoints/llama-modelopt-nvfp4", "model.layers.1.mlp.up_proj", 1, 224, 96, 0, 7128.944836269482},
           SumCase{"checkpoints/llama-mlx-mxfp4", "model.layers.2.self_attn.q_proj", 1, 192, 96, 0, 22744.28125},
           SumCase{"checkpoints/llama-mlx-mxfp4", "model.embed_tokens", 1, 512, 96, 0, 75016.625},
           SumCase{"checkpoints/qwen3-ct-mxfp4", "model.layers.0.self_attn.k_proj", 1, 128, 128, 0, 1569.875},
           SumCase{"checkpoints/mixtral-ct-nvfp4", "model.layers.1.block_sparse_moe.experts.3.w2", 1, 64, 96, 0,
                   -2533.330173907005},
           SumCase{"checkpoints/qwen3_moe-mlx-nvfp4", "model.layers.1.mlp.switch_mlp.down_proj", 8, 128, 96, 0,
                   1145.400390625},
           SumCase{"checkpoints/qwen3_moe-mlx-nvfp4", "model.layers.1.mlp.gate", 1, 8, 128, 0, -366.9054718017578},
           SumCase{"gguf/llama-gguf-mxfp4/model.gguf", "blk.1.attn_q", 1, 192, 96, 6, -15694.890625},
           SumCase{"gguf/llama-gguf-mxfp4/model.gguf", "blk.1.attn_k", 1, 64, 96, 2, -219.109375},
           SumCase{"gguf/llama-gguf-mxfp4/model.gguf", "blk.2.ffn_down", 1, 96, 224, 0, 2062.7578125},
           SumCase{"gguf/llama-gguf-mxfp4/model.gguf", "token_embd", 1, 512, 96, 0, 20650.390937805176},
           SumCase{"gguf/glm4_moe_lite-gguf-nvfp4/model.gguf", "blk.1.ffn_down_exps", 8, 128, 64, 0,
                   29410.678504400013},
           SumCase{"gguf/gpt_oss-gguf-mxfp4/model.gguf", "blk.1.ffn_up_exps", 8, 96, 96, 0, -25497.046875},
       }) {
    SCOPED_TRACE(fmt::format("{} {}", c.file, c.tensor));
    const auto source = open(c.file);
    const CanonicalWeight weight = source->read(
        {.name = {c.tensor, c.tensor}, .E = c.E, .N = c.N, .K = c.K, .gguf_permuted_heads = c.permuted_heads});
    const WeightedSum found = weighted_sum(decoded(weight));
    EXPECT_NEAR(found.sum, c.expected, 1e-9 * found.magnitude);  // tensor scales round once, to float32
  }
}

}  // namespace
}  // namespace nibble
