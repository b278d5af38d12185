#include "engine/engine.h"

#include <algorithm>

#include "base/error.h"
#include "base/memory.h"
#include "base/naming.h"
#include "engine/packed_cache.h"
#include "models/shapes.h"
#include "weights/importer.h"
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
    if (request.heads.transposed || request.name.gguf.ends_with("ffn_gate_inp")) return FormatId::bf16;
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

MemoryPlan plan_memory(const Model& model, const Backend& backend, const KvCacheShape& cache, int64_t prefill_block) {
  MemoryPlan plan;
  int64_t file_bytes = 0, largest = 0;
  for (const WeightEntry& entry : model.weights.entries()) {
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
      const MatrixInfo& info = matrix->info;
      plan.weights_bytes += backend.plan_pack(info.format, info.E, info.N, info.K).bytes;
      file_bytes += info.bytes;
      largest = std::max(largest, info.bytes);
    } else {
      plan.weights_bytes += entry.bytes();
    }
  }
  plan.loading_bytes = std::max(largest, std::min(file_bytes, kReadAheadBytes));
  plan.kv_cache_bytes = cache.bytes();
  const Step step = model.forward(prefill_block, LogitsFor::last_token);
  for (const StepBuffer& buffer : step.buffers)
    plan.scratch_bytes += step.num_rows(buffer.rows) * buffer.width * static_cast<int64_t>(sizeof(float));
  return plan;
}

void check_memory(const MemoryPlan& plan, const KvCacheShape& cache, int64_t available_bytes, std::string_view name) {
  if (available_bytes == 0 || plan.total() <= available_bytes) return;
  throw_input_error(
      "{}: {} MB needed ({} MB of weights, {} MB of KV cache for {} positions), {} MB of memory available; "
      "a smaller --ctx or a smaller model would fit",
      name, plan.total() >> 20, plan.weights_bytes >> 20, plan.kv_cache_bytes >> 20,
      cache.max_len * cache.num_sequences, available_bytes >> 20);
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
  const MemoryPlan plan = plan_memory(model(), *backend_, kv_cache_shape(), options_.prefill_block);
  check_memory(plan, kv_cache_shape(), static_cast<int64_t>(available_memory_bytes()), checkpoint().path.string());

  weights_ = options_.packed_cache.empty()
                 ? pack_weights(model().weights, *backend_, options_.progress)
                 : PackedCache(options_.packed_cache, checkpoint(), model().weights, *backend_).load(options_.progress);
  for (const auto& weight : weights_) weight_pointers_.push_back(weight.get());
}

}  // namespace nibble
