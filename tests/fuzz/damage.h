// Ways in which a checkpoint's files are damaged: the fuzzers' own mutators, and the test of damaged checkpoints. They
// know the containers, so that what comes out still passes the first checks and reaches the later ones. The same random
// state gives the same damage.
#pragma once

#include <cstdint>
#include <string>

#include "fuzz/files.h"

namespace nibble {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {  // SplitMix64
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  size_t below(size_t count) { return static_cast<size_t>(bits() % count); }
  bool one_in(size_t count) { return below(count) == 0; }

 private:
  uint64_t state_;
};

// Each damages its argument in one way and says which.
std::string damage_bytes(std::string& bytes, Random& random);        // flips, edge values, cuts
std::string damage_json(std::string& text, Random& random);          // values, keys
std::string damage_safetensors(std::string& bytes, Random& random);  // length, header, data
std::string damage_gguf(std::string& bytes, Random& random);         // each field of the header, data

// One file, by what its name says it is; or files removed, emptied, or swapped.
std::string damage_files(Files& files, Random& random);

}  // namespace nibble
