// A model that is ready to run: an open checkpoint, its architecture, and its weights in a backend's memory.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "engine/backends.h"
#include "engine/pack_weights.h"
#include "models/model.h"

namespace nibble {

// An opened model of which no weight has been read yet: enough for `nibble plan`.
struct ModelFiles {
  std::shared_ptr<const Checkpoint> checkpoint;
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<Model> model;
};

// Throws InputError for whatever does not fit, unknown tensors among it.
ModelFiles open_model(const std::filesystem::path& path);

// A published shape (models/shapes.h) with random weights: experts in one format, the other matrices in another; routers
// in bfloat16, and what an importer would transpose in transposed FP4, if the others are FP4.
struct RandomFormats {
  FormatId experts, rest;
};
ModelFiles random_model(const std::string& shape, int64_t num_layers, RandomFormats formats);

// The same for any checkpoint without tensors, and a format for each matrix.
ModelFiles random_model(Checkpoint shape, std::function<FormatId(const MatrixRequest&)> format);

// Bytes that running a model takes.
struct MemoryPlan {
  int64_t weights_bytes = 0;  // packed
  int64_t kv_cache_bytes = 0;
  int64_t scratch_bytes = 0;  // of steps of blocks of a prompt (kPromptSteps), and of one that decodes
  int64_t loading_bytes = 0;  // of weights that are read and not yet packed
  int64_t roof_bytes = 0;     // to measure the read bandwidth, once all is loaded
  int64_t total() const { return weights_bytes + kv_cache_bytes + scratch_bytes + std::max(loading_bytes, roof_bytes); }
};

struct EngineOptions {
  BackendOptions backend;
  std::optional<KvCacheType> kv_cache_type;  // none: the backend's default
  int64_t max_len = 4096;                    // positions of a sequence; no more than the model has
  int64_t num_sequences = 1;                 // that there will be caches for
  int64_t prefill_block = 512;               // tokens of a prompt that go through together
  int64_t kv_spare = 1024;                   // KvCacheShape::spare, at least prefill_block
  std::filesystem::path packed_cache;        // the folder of a PackedCache; empty: none
  bool measures_roof = false;                // whether memory must be left for Backend::measure_read_gbps
  LoadProgress progress;
};

// Throws InputError, with `name` and the numbers, if `plan` is more than `available_bytes` (0: unknown).
void check_memory(const MemoryPlan& plan, const KvCacheShape& cache, int64_t available_bytes, std::string_view name);

// `cache`: of all sequences, of which a step decodes a token each.
MemoryPlan plan_memory(const Model& model, const Backend& backend, const KvCacheShape& cache, int64_t prefill_block,
                       bool measures_roof = false);

// By WeightId, as Backend wants them to plan a step.
std::vector<WeightShape> weight_shapes(const WeightTable& table);

class Engine {
 public:
  // Opens the model, checks that it fits into memory, and loads it. Throws InputError or RunError.
  Engine(const std::filesystem::path& path, const EngineOptions& options) : Engine(open_model(path), options) {}
  Engine(ModelFiles files, const EngineOptions& options);

  const Checkpoint& checkpoint() const { return *files_.checkpoint; }
  const Model& model() const { return *files_.model; }
  Backend& backend() { return *backend_; }
  const EngineOptions& options() const { return options_; }
  KvCacheShape kv_cache_shape() const;

  std::unique_ptr<CompiledStep> compile(const Step& step) const {
    return backend_->compile(step, weight_pointers_, kv_cache_shape());
  }

 private:
  EngineOptions options_;
  ModelFiles files_;
  std::unique_ptr<Backend> backend_;
  PackedWeights weights_;
  std::vector<const PackedWeight*> weight_pointers_;
};

}  // namespace nibble
