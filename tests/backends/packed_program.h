// A step with its packed weights, compiled for one backend: for tests that ask it what it is, or run it on a cache of others.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/step_program.h"

namespace nibble {

struct PackedProgram {
  PackedProgram(const StepProgram& p, Backend& backend) : packed(p.pack(backend)) {
    for (const auto& weight : packed) pointers.push_back(weight.get());
    step = backend.compile(p.step, pointers, p.cache_shape);
    cache = backend.make_kv_cache(p.cache_shape);
    const int64_t num_rows = p.step.num_rows(p.step.buffers[static_cast<size_t>(p.step.logits.buffer)].rows);
    num_values = static_cast<size_t>(num_rows * p.step.logits.width);
  }
  std::vector<float> run(const std::vector<Place>& places) { return run(places, *cache); }
  std::vector<float> run(const std::vector<Place>& places, KvCache& on) {
    std::vector<int32_t> tokens, pos, sequence;
    for (const Place& place : places) {
      tokens.push_back(place.token);
      pos.push_back(place.pos);
      sequence.push_back(place.sequence);
    }
    std::vector<float> values(num_values);
    step->run({tokens, pos, sequence}, on, values);
    return values;
  }
  std::vector<std::string> phase_names() const {  // "attention (attention_f16_128)", …
    std::vector<std::string> names;
    for (const Phase& phase : step->phases()) names.push_back(phase.name);
    return names;
  }

  std::vector<std::unique_ptr<PackedWeight>> packed;  // by WeightId
  std::vector<const PackedWeight*> pointers;
  std::unique_ptr<CompiledStep> step;
  std::unique_ptr<KvCache> cache;
  size_t num_values;
};

}  // namespace nibble
