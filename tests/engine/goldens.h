// The golden models: small checkpoints with random weights, and the logits that another implementation computes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/session.h"

namespace nibble {

inline const std::filesystem::path kModels = std::filesystem::path(NIBBLE_TEST_DATA) / "models";
inline const std::filesystem::path kTalking = kModels / "llama-bf16";  // has a tokenizer and a chat template

struct Golden {
  std::string name;
  std::filesystem::path folder, model;
  std::vector<int32_t> prompt, greedy;
  std::vector<float> logits;  // [prompt, vocabulary]
};

inline void PrintTo(const Golden& golden, std::ostream* out) { *out << golden.folder; }

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The float32 values of an .npy file of format 1.0.
inline std::vector<float> read_npy(const std::filesystem::path& path) {
  const std::string bytes = read_bytes(path);
  uint16_t header = 0;
  std::memcpy(&header, bytes.data() + 8, 2);
  EXPECT_NE(bytes.find("'<f4'"), std::string::npos) << path;
  std::vector<float> values((bytes.size() - 10 - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + 10 + header, values.size() * sizeof(float));
  return values;
}

// What of the folder is named as the model: a GGUF file, the first of several, or the folder itself.
inline std::filesystem::path model_in(const std::filesystem::path& folder) {
  for (const char* name : {"model.gguf", "model-00001-of-00003.gguf"})
    if (std::filesystem::exists(folder / name)) return folder / name;
  return folder;
}

inline Golden read_golden(const std::filesystem::path& folder) {
  const auto json = parse_json(read_bytes(folder / "golden.json"));
  return {.name = folder.filename().string(),
          .folder = folder,
          .model = model_in(folder),
          .prompt = json.at("prompt_tokens"),
          .greedy = json.at("greedy_tokens"),
          .logits = read_npy(folder / "golden_logits.npy")};
}

// The engine for a golden model, with room for a few hundred positions.
inline Engine open_engine(const std::filesystem::path& model, const std::string& backend = "cpu", int num_threads = 1) {
  return {model, {.backend = {.name = backend, .num_threads = num_threads}, .max_len = 256}};
}

// Log-probabilities, as doubles.
inline std::vector<double> log_softmax(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double total = 0;
  for (float logit : logits) total += std::exp(logit - largest);
  std::vector<double> result;
  for (float logit : logits) result.push_back(logit - largest - std::log(total));
  return result;
}

// The KL divergence of each row from the golden one, averaged.
inline double mean_kl(std::span<const float> golden, std::span<const float> logits, size_t vocab_size) {
  double sum = 0;
  for (size_t at = 0; at < golden.size(); at += vocab_size) {
    const auto p = log_softmax(golden.subspan(at, vocab_size)), q = log_softmax(logits.subspan(at, vocab_size));
    for (size_t i = 0; i < vocab_size; i++) sum += std::exp(p[i]) * (p[i] - q[i]);
  }
  return sum * static_cast<double>(vocab_size) / static_cast<double>(golden.size());
}

inline int32_t best_token(std::span<const float> logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

inline std::vector<float> forward(Engine& engine, std::span<const int32_t> tokens, int64_t block) {
  std::vector<float> logits(tokens.size() * static_cast<size_t>(engine.model().config.vocab_size));
  Session(engine).forward(tokens, block, logits.data());
  return logits;
}

}  // namespace nibble
