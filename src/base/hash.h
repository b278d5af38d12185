// A 64-bit hash of bytes, faster than memory: it finds damage and tells files apart by their contents. It is no secret
// keeper: whoever wants two different files of one hash can make them.
#pragma once

#include <cstdint>
#include <span>

namespace nibble {

// The same on every machine. `seed` continues a chain: hash_bytes(b, hash_bytes(a)) depends on a, b and where they meet.
uint64_t hash_bytes(std::span<const uint8_t> bytes, uint64_t seed = 0);

}  // namespace nibble
