// A language model, loaded and ready to answer: the whole engine behind one class.
//
//   nibble::LanguageModel model("models/SmolLM2-135M-Instruct-NVFP4");
//   model.chat("What is the capital of France?", {}, [](std::string_view text) { std::cout << text << std::flush; });
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Every function that takes input throws a std::runtime_error, with the file or name and both values, for what does not
// fit.
class LanguageModel {
 public:
  struct Options {
    std::string backend;                 // "cpu", "reference" or, if built with it, "metal"; empty: the best of them
    int num_threads = 0;                 // 0: one for each processor that this process may use
    int activation_bits = 0;             // that the CPU rounds activations to: 15 or 8; 0: the default, 15
    int64_t max_len = 4096;              // positions of the KV cache, at least 1; as many as the model has if fewer
    std::filesystem::path packed_cache;  // a folder that keeps packed weights for the next time (cpu); empty: none
  };

  struct Sampling {
    int64_t max_new_tokens = 512;
    float temperature = 0;  // 0: the best token each time
    int64_t top_k = 0;      // 0: all
    float top_p = 1, min_p = 0, repetition_penalty = 1;
    std::optional<uint64_t> seed;
  };

  struct Answer {
    std::string text;
    std::vector<int32_t> tokens;  // without the token that ended it
    bool stopped = false;         // false: max_new_tokens or the context ended it
    double prefill_tok_s = 0, decode_tok_s = 0;
    double read_gbps = 0;  // at which decode steps read weights and cache
  };

  // Hears each piece of the answer as it comes; always whole UTF-8 sequences.
  using OnText = std::function<void(std::string_view text)>;

  // Loads a folder in Hugging Face layout or a .gguf file.
  explicit LanguageModel(const std::filesystem::path& path);
  LanguageModel(const std::filesystem::path& path, const Options& options);
  ~LanguageModel();
  LanguageModel(LanguageModel&&) noexcept;
  LanguageModel& operator=(LanguageModel&&) noexcept;

  // Answers one message, with the checkpoint's chat template. Each call is a conversation of its own.
  Answer chat(std::string_view message, const Sampling& sampling, const OnText& on_text = {});

  // Continues a text, or token ids (the only way for a checkpoint without a tokenizer).
  Answer complete(std::string_view text, const Sampling& sampling, const OnText& on_text = {});
  Answer complete(std::span<const int32_t> tokens, const Sampling& sampling, const OnText& on_text = {});

  // The logits after each token, row-major [tokens, vocab_size()].
  std::vector<float> logits(std::span<const int32_t> tokens);

  std::vector<int32_t> tokenize(std::string_view text, bool parse_special = false) const;
  int64_t vocab_size() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
