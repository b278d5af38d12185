// The CPU's KV cache: for each layer a plane of keys and one of values, [num_sequences, heads, kept positions, width of a
// head], so that what an attention reads of one head lies together.
#pragma once

#include <vector>

#include "base/memory.h"
#include "ops/backend.h"

namespace nibble {

// Rows of one head of one sequence: position p at data + p % num_rows * row_bytes.
struct KvPlane {
  uint8_t* data;
  int64_t row_bytes, num_rows;

  uint8_t* row(int64_t pos) const { return data + pos % num_rows * row_bytes; }
};

class CpuKvCache final : public KvCache {
 public:
  explicit CpuKvCache(const KvCacheShape& s) : KvCache(s), value_bytes_(kv_cache_value_bytes(s.type)) {
    for (const KvLayer& layer : s.layers) {
      const int64_t positions = s.num_sequences * s.kept(layer);
      k_.emplace_back(static_cast<size_t>(positions * layer.k_width * value_bytes_));
      v_.emplace_back(static_cast<size_t>(positions * layer.v_width * value_bytes_));
    }
  }

  // The rows that hold column `column` of the keys (or values), from that column on.
  KvPlane k(int layer, int64_t sequence, int64_t column) const {
    return plane(k_, shape.layers[static_cast<size_t>(layer)].k_width, layer, sequence, column);
  }
  KvPlane v(int layer, int64_t sequence, int64_t column) const {
    return plane(v_, shape.layers[static_cast<size_t>(layer)].v_width, layer, sequence, column);
  }

 private:
  KvPlane plane(const std::vector<Buffer>& planes, int64_t width, int l, int64_t sequence, int64_t column) const {
    const KvLayer& layer = shape.layers[static_cast<size_t>(l)];
    const int64_t num_rows = shape.kept(layer), head_width = width / layer.num_heads;
    const int64_t head = sequence * layer.num_heads + column / head_width;
    return {.data = planes[static_cast<size_t>(l)].data() +
                    (head * num_rows * head_width + column % head_width) * value_bytes_,
            .row_bytes = head_width * value_bytes_,
            .num_rows = num_rows};
  }

  int64_t value_bytes_;
  std::vector<Buffer> k_, v_;
};

}  // namespace nibble
