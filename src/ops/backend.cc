#include "ops/backend.h"

namespace nibble {

std::string_view kv_cache_type_name(KvCacheType type) { return type == KvCacheType::f32 ? "f32" : "f16"; }

int64_t kv_cache_value_bytes(KvCacheType type) { return type == KvCacheType::f32 ? 4 : 2; }

}  // namespace nibble
