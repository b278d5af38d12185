#include "checkpoint/json_file.h"
#include "engine/backends.h"
#include "engine/engine.h"
#include "engine/text.h"
#include "fuzz/targets.h"
#include "models/model.h"
#include "weights/quantization_config.h"
#include "weights/random_source.h"

namespace nibble {

namespace {

// The model that the configuration describes, from weights of whatever shapes it asks for; none is read.
void make_and_plan(const Checkpoint& checkpoint) {
  const auto source = make_random_source({.format = [](const MatrixRequest&) { return FormatId::bf16; }});
  const auto model = make_model(checkpoint, *source);
  double bytes = 0;  // of a model that a file could hold
  for (const WeightEntry& entry : model->weights.entries()) bytes += static_cast<double>(entry.bytes());
  if (bytes > 1e17) return;
  const auto backend = make_backend({.name = "reference"});
  const MemoryPlan plan =
      plan_memory(*model, *backend, {.layers = model->kv_layers, .max_len = model->config.max_position_embeddings}, 64);
  expect(plan.weights_bytes > 0 && plan.kv_cache_bytes > 0 && plan.scratch_bytes > 0 && plan.total() > 0,
         "a plan without overflow");
}

}  // namespace

void fuzz_config(Bytes bytes) {
  const Files files = split_files(bytes);
  Checkpoint checkpoint{.container = Container::safetensors, .path = "model"};
  bool is_read = false;
  input_error_of("model", [&] {
    const auto read = [&](const std::string& name) {
      const auto text = file_or_empty(files, name);
      return text.empty() ? nlohmann::json() : parse_json_object(text, "model/" + name, RepeatedKeys::last_wins);
    };
    if (files.contains("metadata.json")) {
      checkpoint.container = Container::gguf;
      checkpoint.config = read("metadata.json");
    } else {
      checkpoint.config = read("config.json");
      checkpoint.hf_quant_config = read("hf_quant_config.json");
      checkpoint.generation_config = read("generation_config.json");
    }
    is_read = checkpoint.config.is_object();
  });
  if (!is_read) return;
  input_error_of("model", [&] {
    const QuantizationConfig config = read_quantization_config(checkpoint);
    for (const char* module :
         {"model.layers.0.self_attn.q_proj", "lm_head", "model.layers.31.mlp.experts.127.gate_proj"}) {
      config.scheme_of(module);
      config.names(module);
    }
  });
  input_error_of("model", [&] { stop_tokens(checkpoint); });
  input_error_of("model", [&] { check_sampling_options(default_sampling(checkpoint)); });
  input_error_of("model", [&] { to_hugging_face_config(read_decoder_config(checkpoint)).dump(); });
  input_error_of("model", [&] { make_and_plan(checkpoint); });
}

}  // namespace nibble
