// A step with its weights, to be run on any backend: what the tests of steps are written in.
#pragma once

#include <optional>
#include <vector>

#include "backends/random_weights.h"
#include "backends/reference/reference_backend.h"
#include "ops/backend.h"

namespace nibble {

// One token of one run.
struct Place {
  int32_t token, pos = 0, sequence = 0;
};

class StepProgram {
 public:
  explicit StepProgram(int64_t M, LogitsFor logits_for = LogitsFor::all_tokens)
      : step{.M = M, .logits_for = logits_for} {}

  WeightId matrix(CanonicalWeight w) {
    weights_.push_back({std::move(w), {}});
    return {static_cast<int>(weights_.size()) - 1};
  }
  WeightId matrix(FormatId format, int64_t N, int64_t K) { return matrix(random_weight(format, 1, N, K, 1, seed_++)); }
  WeightId vector(std::vector<float> values) {
    weights_.push_back({{}, std::move(values)});
    return {static_cast<int>(weights_.size()) - 1};
  }
  WeightId vector(int64_t size) { return vector(random_activations(size, seed_++)); }

  // A float32 matrix of these rows: embedding token m gives row m.
  WeightId rows(const std::vector<float>& values, int64_t width) {
    const auto N = static_cast<int64_t>(values.size()) / width;
    auto storage = std::make_shared<std::vector<float>>(values);
    return matrix({.format = FormatId::f32,
                   .E = 1,
                   .N = N,
                   .K = width,
                   .codes = {reinterpret_cast<const uint8_t*>(storage->data()), values.size() * sizeof(float)},
                   .scales = {},
                   .parts = {{0, {1.0f}}},
                   .storage = storage});
  }
  // A buffer that begins as random rows, another for each token.
  Slice random_input(const char* name, int64_t width, int64_t num_tokens = 32) {
    const Slice out = step.buffer(name, width);
    step.embed({.w = rows(random_activations(num_tokens * width, seed_++), width), .out = out});
    return out;
  }

  FormatId packed_format(WeightId id) const {  // of a matrix that has a kernel
    return weights_[static_cast<size_t>(id.index)].matrix.format;
  }

  std::vector<std::unique_ptr<PackedWeight>> pack(Backend& backend) const {  // by WeightId
    std::vector<std::unique_ptr<PackedWeight>> packed;
    for (const Weight& w : weights_)
      packed.push_back(w.vector ? backend.pack_vector(*w.vector) : backend.pack(w.matrix));
    return packed;
  }

  // Runs the step for each list of M places, one after the other on one cache; the results below each other.
  std::vector<float> run(Backend& backend, const std::vector<std::vector<Place>>& runs) const {
    const auto packed = pack(backend);
    std::vector<const PackedWeight*> pointers;
    for (const auto& weight : packed) pointers.push_back(weight.get());
    const auto compiled = backend.compile(step, pointers, cache_shape);
    const auto cache = backend.make_kv_cache(cache_shape);
    const auto values = static_cast<size_t>(num_logits_rows() * step.logits.width);
    std::vector<float> all;
    for (const std::vector<Place>& places : runs) {
      std::vector<int32_t> tokens, pos, sequence;
      for (const Place& place : places) {
        tokens.push_back(place.token);
        pos.push_back(place.pos);
        sequence.push_back(place.sequence);
      }
      std::vector<float> out(values);
      compiled->run({tokens, pos, sequence}, *cache, out);
      all.insert(all.end(), out.begin(), out.end());
    }
    return all;
  }

  // One run of tokens 0 … M-1 of one sequence.
  std::vector<std::vector<Place>> one_run() const {
    std::vector<Place> places;
    for (int32_t m = 0; m < step.M; m++) places.push_back({m, m, 0});
    return {places};
  }

  Step step;
  KvCacheShape cache_shape{.layers = {}, .num_sequences = 1, .max_len = 64, .type = KvCacheType::f32};

 private:
  struct Weight {
    CanonicalWeight matrix;
    std::optional<std::vector<float>> vector;
  };
  int64_t num_logits_rows() const { return step.num_rows(step.buffers[static_cast<size_t>(step.logits.buffer)].rows); }

  std::vector<Weight> weights_;
  uint32_t seed_ = 1;
};

}  // namespace nibble
