#include "engine/engine.h"

#include <algorithm>

#include "base/error.h"
#include "base/memory.h"
#include "base/naming.h"
#include "engine/packed_cache.h"
#include "engine/step_cache.h"
#include "models/shapes.h"
#include "weights/importer_core.h"
#include "weights/random_source.h"

namespace nibble {

ModelFiles open_model(const std::filesystem::path& path) {
  ModelFiles files;
  files.checkpoint = std::make_shared<const Checkpoint>(open_checkpoint(path));
  files.source = make_importer(files.checkpoint);
  files.model = make_model(*files.checkpoint, *files.source);
  naming(path.string(), [&] { check_no_unknown_tensors(files.model->weights); });
  return files;
}

ModelFiles random_model(const std::string& shape, int64_t num_layers, RandomFormats formats) {
  return random_model(shape_checkpoint(shape, num_layers), [formats](const MatrixRequest& request) {
    if (request.name.gguf.ends_with("ffn_gate_inp")) return FormatId::bf16;
    // As a Hugging Face folder's transposed slice comes in FP4; a GGUF file has that matrix by itself.
    const bool is_fp4 = formats.rest == FormatId::mxfp4 || formats.rest == FormatId::nvfp4;
    if (request.heads.transposed && is_fp4) return transposed_format(formats.rest);
    return request.is_experts && request.heads.head_rows == 0 ? formats.experts : formats.rest;
  });
}

ModelFiles random_model(Checkpoint shape, std::function<FormatId(const MatrixRequest&)> format) {
  ModelFiles files;
  files.checkpoint = std::make_shared<const Checkpoint>(std::move(shape));
  files.source = make_random_source({.format = std::move(format)});
  files.model = make_model(*files.checkpoint, *files.source);
  return files;
}

std::vector<WeightShape> weight_shapes(const WeightTable& table) {
  std::vector<WeightShape> shapes;
  for (const WeightEntry& entry : table.entries()) {
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
      const MatrixInfo& info = matrix->info;
      shapes.push_back({.format = info.format, .E = info.E, .N = info.N, .K = info.K, .is_vector = false});
    } else {
      const auto& vector = std::get<VectorRequest>(entry.what);
      shapes.push_back({.format = FormatId::f32, .E = vector.E, .N = vector.size, .K = 1, .is_vector = true});
    }
  }
  return shapes;
}

MemoryPlan plan_memory(const Model& model, const Backend& backend, const KvCacheShape& cache, int64_t prefill_block,
                       bool measures_roof) {
  MemoryPlan plan;
  for (const WeightEntry& entry : model.weights.entries()) {
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
      const MatrixInfo& info = matrix->info;
      plan.weights_bytes += backend.plan_pack(info.format, info.E, info.N, info.K).bytes;
    } else {
      plan.weights_bytes += entry.bytes();
    }
  }
  plan.loading_bytes = largest_load(model.weights);
  plan.kv_cache_bytes = backend.kv_cache_bytes(cache);
  const std::vector<WeightShape> shapes = weight_shapes(model.weights);
  const auto scratch_bytes = [&](int64_t M, LogitsFor logits_for) {
    return backend.plan_scratch_bytes(model.forward(M, logits_for), shapes, cache);
  };
  plan.scratch_bytes = kPromptSteps * scratch_bytes(prefill_block, LogitsFor::last_token) +
                       scratch_bytes(cache.num_sequences, LogitsFor::all_tokens);
  if (measures_roof) plan.roof_bytes = backend.roof_bytes();
  return plan;
}

void check_memory(const MemoryPlan& plan, const KvCacheShape& cache, int64_t available_bytes, std::string_view name) {
  if (available_bytes == 0 || plan.total() <= available_bytes) return;
  const std::string roof =
      plan.roof_bytes > 0 ? fmt::format(", {} MB to measure the read bandwidth", plan.roof_bytes >> 20) : "";
  throw_input_error(
      "{}: {} MB needed ({} MB of weights, {} MB of KV cache for {} positions, {} MB of scratch{}), {} MB of memory "
      "available; a smaller --ctx or a smaller model would fit",
      name, plan.total() >> 20, plan.weights_bytes >> 20, plan.kv_cache_bytes >> 20,
      cache.max_len * cache.num_sequences, plan.scratch_bytes >> 20, roof, available_bytes >> 20);
}

KvCacheShape Engine::kv_cache_shape() const {
  return {.layers = model().kv_layers,
          .num_sequences = options_.num_sequences,
          .max_len = std::min(options_.max_len, model().config.max_position_embeddings),
          .type = choose_kv_cache_type(*backend_, options_.kv_cache_type),
          .spare = std::max(options_.kv_spare, options_.prefill_block)};
}

Engine::Engine(ModelFiles files, const EngineOptions& options)
    : options_(options), files_(std::move(files)), backend_(make_backend(options.backend)) {
  if (options_.max_len < 1)
    throw_input_error("{}: a context of {} positions, 1 to {} expected", checkpoint().path.string(), options_.max_len,
                      model().config.max_position_embeddings);
  const MemoryPlan plan =
      plan_memory(model(), *backend_, kv_cache_shape(), options_.prefill_block, options_.measures_roof);
  check_memory(plan, kv_cache_shape(), static_cast<int64_t>(available_memory_bytes()), checkpoint().path.string());

  weights_ = options_.packed_cache.empty()
                 ? pack_weights(model().weights, *backend_, options_.progress)
                 : PackedCache(options_.packed_cache, checkpoint(), model().weights, *backend_).load(options_.progress);
  for (const auto& weight : weights_) weight_pointers_.push_back(weight.get());
}

}  // namespace nibble
