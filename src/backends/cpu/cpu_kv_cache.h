// The CPU's KV cache: for each layer a plane of keys and one of values, [num_sequences, heads, kept positions, width of a
// head], so that what an attention reads of one head lies together. Of type q8_0 a head's kept positions are whole blocks
// (KvLayout).
#pragma once

#include <cassert>
#include <cstring>
#include <vector>

#include "backends/cpu/float_kernels.h"
#include "base/memory.h"
#include "ops/backend.h"

namespace nibble {

// Rows of one head of one sequence: position p in row p % num_rows.
struct KvPlane {
  uint8_t* values;
  int64_t row_bytes, num_rows;
  KvLayout layout;

  KvRow row(int64_t pos) const { return kv_row(layout, values, row_bytes, pos % num_rows); }
  KvRun run(int64_t first_pos) const {
    return {.values = values, .row_bytes = row_bytes, .num_rows = num_rows, .first_row = first_pos % num_rows};
  }
};

class CpuKvCache final : public KvCache {
 public:
  explicit CpuKvCache(const KvCacheShape& s) : KvCache(s) {
    for (const KvLayer& layer : s.layers) {
      const int64_t rows = s.num_sequences * num_rows(s, layer) * layer.num_heads;
      k_.emplace_back(static_cast<size_t>(rows * kv_cache_row_bytes(s.type, layer.k_width / layer.num_heads)));
      v_.emplace_back(static_cast<size_t>(rows * kv_cache_row_bytes(s.type, layer.v_width / layer.num_heads)));
    }
  }

  static int64_t bytes(const KvCacheShape& s) {
    int64_t sum = 0;
    for (const KvLayer& layer : s.layers) sum += layer.bytes(s.type) * num_rows(s, layer);
    return s.num_sequences * sum;
  }

  void repeat(int64_t sequence, int64_t period, int64_t length) override {
    const auto repeat_head = [&](const KvPlane& rows) {
      if (rows.layout == KvLayout::floats)
        return repeat_rows(rows.values, rows.row_bytes, rows.num_rows, period, length);
      for (int64_t p = period; p < length; p++) {
        const KvRow from = rows.row(p - period), to = rows.row(p);
        const int64_t unit_bytes = to.unit_bytes > 0 ? to.unit_bytes : rows.row_bytes;
        for (int64_t i = 0; i < rows.row_bytes / unit_bytes; i++)
          std::memmove(to.values + i * to.unit_stride, from.values + i * to.unit_stride,
                       static_cast<size_t>(unit_bytes));
        for (int64_t group = 0; group < rows.row_bytes / Q8_0::group_size; group++)
          to.scales[group * kKvBlock] = from.scales[group * kKvBlock];
      }
    };
    for (int l = 0; l < static_cast<int>(shape.layers.size()); l++) {
      const KvLayer& layer = shape.layers[static_cast<size_t>(l)];
      for (int64_t head = 0; head < layer.num_heads; head++) {
        repeat_head(k(l, sequence, head * layer.k_width / layer.num_heads));
        if (layer.v_width > 0) repeat_head(v(l, sequence, head * layer.v_width / layer.num_heads));
      }
    }
  }

  // The rows that hold column `column` of the keys (or values), from that column on; of q8_0 a head's first column.
  KvPlane k(int layer, int64_t sequence, int64_t column) const {
    return plane(k_, KvLayout::keys, shape.layers[static_cast<size_t>(layer)].k_width, layer, sequence, column);
  }
  KvPlane v(int layer, int64_t sequence, int64_t column) const {
    return plane(v_, KvLayout::values, shape.layers[static_cast<size_t>(layer)].v_width, layer, sequence, column);
  }

 private:
  static int64_t num_rows(const KvCacheShape& s, const KvLayer& layer) {
    const int64_t kept = s.kept(layer);
    return s.type == KvCacheType::q8_0 ? (kept + kKvBlock - 1) / kKvBlock * kKvBlock : kept;
  }

  KvPlane plane(const std::vector<Buffer>& planes, KvLayout layout, int64_t width, int l, int64_t sequence,
                int64_t column) const {
    const KvLayer& layer = shape.layers[static_cast<size_t>(l)];
    const int64_t num_rows = CpuKvCache::num_rows(shape, layer), head_width = width / layer.num_heads;
    const int64_t head = sequence * layer.num_heads + column / head_width, within = column % head_width;
    assert(within == 0 || shape.type != KvCacheType::q8_0);
    const int64_t bytes = kv_cache_row_bytes(shape.type, head_width);
    uint8_t* first = planes[static_cast<size_t>(l)].data() + head * num_rows * bytes;
    if (shape.type == KvCacheType::q8_0) {
      const int64_t code_bytes = bytes / (Q8_0::group_size + Q8_0::group_scale_bytes) * Q8_0::group_size;
      return {.values = first,
              .row_bytes = code_bytes,
              .num_rows = num_rows,
              .layout = float_kernels().interleaves_q8_0 ? layout : KvLayout::codes};
    }
    return {.values = first + kv_cache_row_bytes(shape.type, within),
            .row_bytes = bytes,
            .num_rows = num_rows,
            .layout = KvLayout::floats};
  }

  std::vector<Buffer> k_, v_;
};

}  // namespace nibble
