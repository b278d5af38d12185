// Byte-pair encoding of one word: it starts as its bytes or characters; the pair of neighbours with the lowest rank is
// merged, the leftmost first, until no neighbours have a rank.
//
// Cost    O(n log n) for a word of n bytes. Short words, which are nearly all, scan their pairs: 16 symbols or less is
//         where that is faster. Long ones keep a list of pairs for each rank, and a heap of ranks: a heap of pairs
//         misses the cache at every step, which took twice as long for a word of a million equal letters.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble {

// The tokens `left` and `right` become `result`. Pairs of equal rank are merged from left to right.
struct BpeMerge {
  int32_t left, right, result, rank;
};

// What a word is before the first merge.
struct BpeSymbols {
  // Added to a character gives the symbol of one without a token, which may still be merged into one (late_unknown).
  static constexpr int32_t kCharacterBase = 1 << 24;

  bool of_bytes = true;                                  // each byte is a symbol, not each character
  std::array<int32_t, 256> bytes;                        // of_bytes: the token of each byte, -1 if there is none
  std::vector<std::pair<char32_t, int32_t>> characters;  // otherwise: the token of each character that has one
  std::array<int32_t, 256> fallback;                     // the tokens that stand for the bytes of other characters,
  bool has_fallback = false;                             // if there are any
  int32_t unknown = -1;       // stands for what has no token; -1: that is left out, as the reference does
  bool fuse_unknown = false;  // neighbours of them become one
  bool late_unknown = false;  // after the merges, as SentencePiece does it; otherwise before them
};

// The token of each character: pages of 256, for the planes that have any.
class CharacterTable {
 public:
  CharacterTable() = default;
  explicit CharacterTable(std::span<const std::pair<char32_t, int32_t>> characters);
  int32_t find(char32_t c) const { return c >> 8 < pages_.size() ? ids_[pages_[c >> 8] + (c & 0xFF)] : -1; }

 private:
  std::vector<uint32_t> pages_;  // offsets into ids_
  std::vector<int32_t> ids_;     // the first page is empty
};

class Bpe {
 public:
  // Buffers of one thread, to be used again from word to word.
  struct Scratch {
    struct Symbol {
      int32_t id, previous, next;  // neighbours by index, -1 at the ends; id -1: merged away
    };
    struct Candidate {
      int32_t at, left, right;  // the pair that begins at symbol `at`, as it was when it was found
      int32_t next;             // of the same rank, -1 at the end
    };
    struct Place {
      int32_t rank, at;
      bool operator>(const Place& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> candidates;
    std::vector<int32_t> last_of_rank;  // the candidate found last; -1: none. All -1 between words
    std::vector<int32_t> open_ranks;    // a heap of the ranks that have candidates
    std::vector<int32_t> batch;         // those of one rank
    std::vector<Place> early;           // a heap of candidates found while their rank, or a later one, is at work
    std::vector<int32_t> ranks;

    void push(int32_t id) {
      const auto at = static_cast<int32_t>(symbols.size());
      symbols.push_back({id, at - 1, at + 1});
    }
  };

  Bpe() = default;
  Bpe(std::span<const BpeMerge> merges, const BpeSymbols& symbols);

  // Appends the tokens of `word` to `ids`.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  static constexpr int32_t kNoRank = INT32_MAX;
  struct Slot {
    uint64_t key;  // left << 32 | right
    int32_t rank, result;
  };
  const Slot& find(int32_t left, int32_t right) const;
  void read_bytes(std::string_view word, Scratch& scratch) const;
  void read_characters(std::string_view word, Scratch& scratch) const;
  void append_late(std::vector<int32_t>& ids, size_t first) const;
  void merge_by_scan(Scratch& scratch, std::vector<int32_t>& ids) const;
  void merge_by_rank(Scratch& scratch, std::vector<int32_t>& ids) const;

  BpeSymbols symbols_;
  CharacterTable characters_;
  int32_t num_ranks_ = 0;
  std::vector<Slot> slots_;  // text/hash_slots.h
};

}  // namespace nibble
