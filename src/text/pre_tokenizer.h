// How a text is cut into words before byte-pair encoding: a list of split steps, each cutting every piece of the one
// before. What other software calls Split, Digits, Punctuation or Whitespace is always a pattern and a behavior.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace nibble {

// What becomes of the matches of a pattern, and of the text between them.
enum class SplitBehavior : uint8_t {
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

// Every space becomes `replacement`; then a piece that does not begin with one gets one, and is cut before each.
struct MetaspaceStep {
  enum class Prepend : uint8_t { always, first, never };  // first: only where the whole text begins
  std::string replacement;
  Prepend prepend = Prepend::always;
  bool split = true;
};

struct PrefixSpaceStep {};  // a piece without a leading space gets one
struct ByteLevelStep {};    // the steps after it see the pieces in the byte-level alphabet

using PreTokenizerStep = std::variant<SplitStep, MetaspaceStep, PrefixSpaceStep, ByteLevelStep>;
using PreTokenizerSpec = std::vector<PreTokenizerStep>;

// The pattern of GPT-2, which is also that of ByteLevel with use_regex.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  // Buffers of one call: the pieces may point into `storage`, which lives as long as they are used.
  struct Scratch {
    std::vector<Regex::Search> searches;  // one for each SplitStep
    std::vector<std::string_view> pieces, cut;
    std::deque<std::string> storage;
  };

  PreTokenizer() = default;
  // Throws InputError if a pattern does not compile.
  explicit PreTokenizer(const PreTokenizerSpec& spec);

  Scratch make_scratch() const;

  // Leaves the words of `text` (valid UTF-8, which outlives them) in scratch.pieces, in order and none empty.
  // `is_first`: the whole text begins here.
  void split(std::string_view text, bool is_first, Scratch& scratch) const;

 private:
  struct CompiledStep {
    PreTokenizerStep step;
    size_t search = 0;  // of a SplitStep: the index of its search in the scratch
  };
  static void cut_by(const SplitStep& step, Regex::Search& search, std::string_view piece,
                     std::vector<std::string_view>& cut);

  std::vector<CompiledStep> steps_;
  std::vector<Regex> regexes_;
};

}  // namespace nibble
