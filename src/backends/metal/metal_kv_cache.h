// The Metal backend's KV cache: for each layer a plane of keys and one of values, [num_sequences, kept positions,
// width].
#pragma once

#include <vector>

#include "backends/metal/metal_device.h"
#include "ops/backend.h"

namespace nibble {

class MetalKvCache final : public KvCache {
 public:
  MetalKvCache(const KvCacheShape& s, MetalDevice& device) : KvCache(s) {
    const auto plane = [&](const KvLayer& layer, int64_t width) {
      const int64_t rows = s.num_sequences * s.kept(layer);
      return device.make_buffer(static_cast<size_t>(rows * kv_cache_row_bytes(s.type, width)));
    };
    for (const KvLayer& layer : s.layers) {
      k.push_back(plane(layer, layer.k_width));
      v.push_back(plane(layer, layer.v_width));
    }
  }
  void repeat(int64_t sequence, int64_t period, int64_t length) override {
    for (size_t l = 0; l < k.size(); l++) {
      const KvLayer& layer = shape.layers[l];
      const int64_t num_rows = shape.kept(layer);
      const auto repeat_plane = [&](MetalBuffer& plane, int64_t width) {
        const int64_t row_bytes = kv_cache_row_bytes(shape.type, width);
        repeat_rows(plane.data() + sequence * num_rows * row_bytes, row_bytes, num_rows, period, length);
      };
      repeat_plane(*k[l], layer.k_width);
      repeat_plane(*v[l], layer.v_width);
    }
  }
  std::vector<std::unique_ptr<MetalBuffer>> k, v;  // by layer
};

}  // namespace nibble
