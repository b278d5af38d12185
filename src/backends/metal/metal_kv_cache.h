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
  std::vector<std::unique_ptr<MetalBuffer>> k, v;  // by layer
};

}  // namespace nibble
