// gpt-oss: attention with sinks, over a sliding window in every other layer; biases everywhere; experts with a clamped
// SwiGLU. `model_type` gpt_oss, GGUF architecture gpt-oss.
#include <algorithm>

#include "base/error.h"
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/moe_config.h"

namespace nibble {

namespace {

// By layer; where the file does not say, the first of each two layers has the window.
std::vector<int64_t> read_windows(const Checkpoint& checkpoint, int64_t num_layers) {
  const ConfigReader reader = config_reader(checkpoint);
  const bool is_gguf = checkpoint.container == Container::gguf;
  const int64_t window = reader.size(is_gguf ? "attention.sliding_window" : "sliding_window", kLargestContext);
  const auto kinds = is_gguf ? std::nullopt : reader.texts("layer_types", num_layers);
  std::vector<int64_t> windows;
  for (int64_t l = 0; l < num_layers; l++) {
    const std::string kind = kinds        ? (*kinds)[static_cast<size_t>(l)]
                             : l % 2 == 0 ? "sliding_attention"
                                          : "full_attention";
    if (kind != "sliding_attention" && kind != "full_attention")
      reader.reject("layer_types", "sliding_attention and full_attention are implemented");
    windows.push_back(kind == "sliding_attention" ? window : 0);
  }
  return windows;
}

}  // namespace

std::unique_ptr<Model> make_gpt_oss(const Checkpoint& checkpoint, WeightSource& source) {
  DecoderConfig c = read_decoder_config(checkpoint);
  const ConfigReader reader = config_reader(checkpoint);
  if (checkpoint.container == Container::gguf) {
    if (checkpoint.find("rope_freqs.weight") != nullptr)
      throw_input_error(
          "{}: rope_freqs.weight: divisors of the rotation's frequencies, which gpt-oss does not have; the file is of "
          "another model than its metadata says",
          checkpoint.path.string());
    c.rope.truncate = false;  // GGUF files do not say
    c.rotation = make_rotation(c.rope);
  }
  c.attention_bias = true;
  c.windows = read_windows(checkpoint, c.num_layers);
  c.moe = read_softmax_experts(checkpoint, c, true);
  c.moe->activation = ExpertActivation::clamped;
  c.moe->alpha = reader.single("swiglu_alpha", 1.702, false);
  c.moe->limit = reader.single("swiglu_limit", 7.0, true);
  return std::make_unique<Decoder>(std::move(c), source,
                                   LayerStyle{.sinks = true,
                                              .expert_biases = true,
                                              .gguf_mlp_norm = "post_attention_norm",
                                              .moe = {.router = "mlp.router"}});
}

}  // namespace nibble
