// What happens to a text before it is cut into words: a list of steps, each working on the result of the one before.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/charsmap.h"
#include "text/regex.h"

namespace nibble {

// SentencePiece's own character for a space.
inline constexpr std::string_view kSpaceSymbol = "\u2581";

enum class NormalizerKind : uint8_t {
  nfc,
  nfd,
  nfkc,
  nfkd,
  lowercase,
  strip_accents,
  strip_left,
  strip_right,
  prepend,        // `text` before a text that is not empty
  replace,        // `content` for each match of the regular expression `text`
  nmt,            // control characters vanish, odd spaces become spaces
  precompiled,    // the charsmap `text`, as the Hugging Face library applies it: by grapheme
  sentencepiece,  // the charsmap `text` (which may be empty) and `spaces`, as SentencePiece applies them
};

// How SentencePiece treats spaces. Each of them becomes kSpaceSymbol where `escape` is set.
struct SpaceRules {
  bool add_prefix = true;    // one space before a text that is not empty,
  bool as_suffix = false;    // or after it
  bool remove_extra = true;  // no spaces at either end and no two in a row
  bool escape = true;
};

struct NormalizerStep {
  NormalizerKind kind;
  std::string text, content;
  SpaceRules spaces;
  std::vector<std::string> kept;  // sentencepiece: user-defined tokens, which pass the charsmap unchanged
  bool is_literal = false;        // replace: `text` was given as a plain string, which the writer writes again
};

using NormalizerSpec = std::vector<NormalizerStep>;

// `text` with `content` for each `pattern` in it, from left to right.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

class Normalizer {
 public:
  Normalizer() = default;
  // Throws InputError if a pattern does not compile or a charsmap contradicts itself.
  explicit Normalizer(const NormalizerSpec& spec);

  // The normalized form of `text`, valid UTF-8: `text` itself or a view into `storage`.
  std::string_view apply(std::string_view text, std::deque<std::string>& storage) const;

 private:
  struct CompiledStep {
    NormalizerStep step;
    std::vector<Regex> regex;  // one for replace, if `text` is a pattern
    Charsmap charsmap;
    AddedTokenMatcher kept;
  };
  static std::string apply_step(const CompiledStep& step, std::string_view text);

  std::vector<CompiledStep> steps_;
};

}  // namespace nibble
