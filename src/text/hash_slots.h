// Open addressing: a table of a power of two of slots, each with a `key`, that is at most half full.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble {

constexpr uint64_t kNoKey = UINT64_MAX;  // of an empty slot

constexpr size_t num_slots_for(size_t num_keys) { return std::bit_ceil(std::max<size_t>(2 * num_keys, 2)); }

// The slot with this key, or the empty one where it belongs.
template <class Slot>
size_t find_slot(const std::vector<Slot>& slots, uint64_t key) {
  const uint64_t spread = key * 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio: all of the key is in the high bits
  size_t at = (spread ^ spread >> 32) & (slots.size() - 1);
  while (slots[at].key != kNoKey && slots[at].key != key) at = (at + 1) & (slots.size() - 1);
  return at;
}

}  // namespace nibble
