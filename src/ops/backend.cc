#include "ops/backend.h"

#include "base/error.h"
#include "formats/formats.h"

namespace nibble {

std::string_view kv_cache_type_name(KvCacheType type) {
  switch (type) {
    case KvCacheType::f32: return "f32";
    case KvCacheType::f16: return "f16";
    case KvCacheType::q8_0: break;
  }
  return "q8_0";
}

int64_t kv_cache_row_bytes(KvCacheType type, int64_t width) {
  switch (type) {
    case KvCacheType::f32: return width * 4;
    case KvCacheType::f16: return width * 2;
    case KvCacheType::q8_0: break;
  }
  const int64_t num_groups = (width + Q8_0::group_size - 1) / Q8_0::group_size;
  return num_groups * (Q8_0::group_size + Q8_0::group_scale_bytes);
}

int64_t KvLayer::bytes(KvCacheType type) const {
  return num_heads * (kv_cache_row_bytes(type, k_width / num_heads) + kv_cache_row_bytes(type, v_width / num_heads));
}

KvCacheType choose_kv_cache_type(const Backend& backend, std::optional<KvCacheType> wanted) {
  const std::span<const KvCacheType> types = backend.kv_cache_types();
  if (!wanted) return types.front();
  if (std::ranges::find(types, *wanted) != types.end()) return *wanted;
  std::string names;
  for (KvCacheType type : types) names += (names.empty() ? "" : " or ") + std::string(kv_cache_type_name(type));
  throw_input_error("backend {} keeps no KV cache of type {}; {} would work", backend.name(),
                    kv_cache_type_name(*wanted), names);
}

}  // namespace nibble
