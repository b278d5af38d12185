// Unigram segmentation: of all ways to write a text as tokens, the one whose scores add up to the most.
//
// Cost    for each byte a walk down a tree of bytes, as deep as the longest token that begins there.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace nibble {

struct UnigramToken {
  std::string_view text;  // need not outlive the Unigram
  int32_t id;
  double score;
};

struct UnigramOptions {
  int32_t unknown = -1;           // stands for a character without a token; -1: that is left out
  bool fuse_unknown = true;       // neighbours of them become one
  std::vector<int32_t> fallback;  // 256 tokens that stand for the bytes of such a character, or none
  bool single_precision = false;  // scores are added as floats, as SentencePiece does; ties then fall as they do there
  double lowest = 0;              // the lowest score; a character without a token scores 10 less
};

class Unigram {
 public:
  Unigram() = default;
  // If two tokens have the same text, the last one counts.
  Unigram(std::span<const UnigramToken> tokens, UnigramOptions options);

  // Buffers of one thread, to be used again.
  struct Scratch {
    struct Best {
      int32_t begin, id;  // the last token of the best way to here; begin -1: no way is known
      double score;
    };
    std::vector<Best> best;  // by end
    std::vector<int32_t> found;
  };

  // Appends the tokens of `text`, valid UTF-8, to `ids`.
  void encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct Node {
    int32_t id = -1;
    double score = 0;
  };
  struct Child {
    uint64_t key;  // node << 8 | byte
    int32_t node;
  };
  template <class Real>
  void find_best(std::string_view text, Scratch& scratch) const;
  int32_t child(int32_t node, uint8_t byte) const;

  std::vector<Node> nodes_;
  std::vector<Child> children_;  // text/hash_slots.h
  UnigramOptions options_;
};

}  // namespace nibble
