// Byte-pair encoding of one word: it starts as its bytes; the pair of neighbours with the lowest rank is merged, the
// leftmost first, until no neighbours have a rank.
//
// Cost    O(n log n) for a word of n bytes. Short words, which are nearly all, scan their pairs instead of keeping a
//         heap: 16 bytes or less is where the scan is faster.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace nibble {

// The tokens `left` and `right` become `result`. A merge's rank is its place in the list.
struct BpeMerge {
  int32_t left, right, result;
};

// The token of each single byte.
struct BpeBytes {
  std::array<int32_t, 256> ids;  // -1: the vocabulary has no token for this byte
  int32_t unknown = -1;          // stands for such a byte; -1: such a byte is left out, as the reference does
  bool fuse_unknown = false;     // neighbours of them become one
};

class Bpe {
 public:
  // Buffers of one thread, to be used again from word to word.
  struct Scratch {
    struct Symbol {
      int32_t id, previous, next;  // neighbours by index, -1 at the ends; id -1: merged away
    };
    struct Candidate {
      int32_t rank, at, left, right;  // the pair that begins at symbol `at`, as it was when it was found
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    std::vector<int32_t> ranks;
  };

  Bpe() = default;
  Bpe(std::span<const BpeMerge> merges, const BpeBytes& bytes);

  // Appends the tokens of `word` to `ids`.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  static constexpr int32_t kNoRank = INT32_MAX;
  struct Slot {
    uint64_t pair;
    int32_t rank, result;
  };
  const Slot& find(int32_t left, int32_t right) const;
  void merge_by_scan(Scratch& scratch, std::vector<int32_t>& ids) const;
  void merge_by_heap(Scratch& scratch, std::vector<int32_t>& ids) const;

  BpeBytes bytes_;
  std::vector<Slot> slots_;  // open addressing, a power of two of them, at most half full
};

}  // namespace nibble
