// How a text is cut into words before byte-pair encoding: a list of split steps, each cutting every piece of the one
// before. What other software calls Split, Digits or ByteLevel is, to the cutting, always a pattern and a behavior.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace nibble {

// What becomes of the matches of a pattern, and of the text between them.
enum class SplitBehavior {
  removed,               // matches are dropped
  isolated,              // each match is a piece
  merged_with_previous,  // each match ends the piece before it
  merged_with_next,      // each match begins the piece after it
  contiguous,            // neighbouring matches are one piece
};

struct SplitStep {
  std::string pattern;  // a regular expression in Oniguruma's syntax
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // what lies between the matches counts as the match
};

struct PreTokenizerSpec {
  std::vector<SplitStep> steps;
  bool add_prefix_space = false;  // a piece that the text's steps before `prefix_step` made gets a leading space
  size_t prefix_step = 0;         // the prefix is added before this step (steps.size(): after all of them)
};

// The pattern of GPT-2, which is also that of ByteLevel with use_regex.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  // Buffers of one call: the pieces may point into `storage`, which lives as long as they are used.
  struct Scratch {
    std::vector<Regex::Search> searches;  // one for each step
    std::vector<std::string_view> pieces, cut;
    std::deque<std::string> storage;
  };

  PreTokenizer() = default;
  // Throws InputError if a pattern does not compile.
  explicit PreTokenizer(const PreTokenizerSpec& spec);

  Scratch make_scratch() const;

  // Leaves the words of `text` (valid UTF-8, which outlives them) in scratch.pieces, in order and none empty.
  void split(std::string_view text, Scratch& scratch) const;

 private:
  struct CompiledStep {
    Regex regex;
    SplitBehavior behavior;
    bool invert;
  };
  std::vector<CompiledStep> steps_;
  bool add_prefix_space_ = false;
  size_t prefix_step_ = 0;
};

}  // namespace nibble
