// The merges of SentencePiece's byte-pair encoding, which its files leave unsaid: two neighbours merge if together they
// are a token; the higher its score, the sooner.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "text/bpe.h"

namespace nibble {

struct ScoredToken {
  std::string_view text;
  int32_t id;
  double score;
};

// All pairs that make a token of `tokens`, in order of rank. Equal scores have equal ranks. A character without a token
// takes part as BpeSymbols::kCharacterBase + character.
// Throws InputError if a token has more than 1024 bytes: each of its bytes is tried as the place to cut it.
std::vector<BpeMerge> merges_of_scores(std::span<const ScoredToken> tokens);

}  // namespace nibble
