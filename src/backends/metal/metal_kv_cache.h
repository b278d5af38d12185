// The Metal backend's KV cache: for each layer a plane of keys and one of values, [num_sequences, max_len, width].
#pragma once

#include <vector>

#include "backends/metal/metal_device.h"
#include "ops/backend.h"

namespace nibble {

class MetalKvCache final : public KvCache {
 public:
  MetalKvCache(const KvCacheShape& s, MetalDevice& device) : KvCache(s) {
    const auto plane = [&](int64_t width) {
      return device.make_buffer(
          static_cast<size_t>(s.num_sequences * s.max_len * width * kv_cache_value_bytes(s.type)));
    };
    for (const KvLayer& layer : s.layers) {
      k.push_back(plane(layer.k_width));
      v.push_back(plane(layer.v_width));
    }
  }
  std::vector<std::unique_ptr<MetalBuffer>> k, v;  // by layer
};

}  // namespace nibble
