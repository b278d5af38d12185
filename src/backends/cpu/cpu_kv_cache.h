// The CPU's KV cache: for each layer a plane of keys and one of values, [num_sequences, max_len, width].
#pragma once

#include <vector>

#include "base/memory.h"
#include "ops/backend.h"

namespace nibble {

class CpuKvCache final : public KvCache {
 public:
  explicit CpuKvCache(const KvCacheShape& s) : KvCache(s), value_bytes_(kv_cache_value_bytes(s.type)) {
    const int64_t positions = s.num_sequences * s.max_len;
    for (const KvLayer& layer : s.layers) {
      k_.emplace_back(static_cast<size_t>(positions * layer.k_width * value_bytes_));
      v_.emplace_back(static_cast<size_t>(positions * layer.v_width * value_bytes_));
    }
  }

  // Value `first` of the key (or value) of a sequence's position.
  uint8_t* k(int layer, int64_t sequence, int64_t pos, int64_t first) const {
    return at(k_, shape.layers[static_cast<size_t>(layer)].k_width, layer, sequence, pos, first);
  }
  uint8_t* v(int layer, int64_t sequence, int64_t pos, int64_t first) const {
    return at(v_, shape.layers[static_cast<size_t>(layer)].v_width, layer, sequence, pos, first);
  }

 private:
  uint8_t* at(const std::vector<Buffer>& planes, int64_t width, int layer, int64_t sequence, int64_t pos,
              int64_t first) const {
    return planes[static_cast<size_t>(layer)].data() +
           ((sequence * shape.max_len + pos) * width + first) * value_bytes_;
  }

  int64_t value_bytes_;
  std::vector<Buffer> k_, v_;
};

}  // namespace nibble
