// One compiled regular expression, for the split patterns of tokenizers.
//
// Published patterns are written for Oniguruma. They run on PCRE2 here, which agrees on most of the syntax; where the
// two would read the same text differently, the pattern is rewritten, or refused if it cannot be.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace nibble {

class Regex {
 public:
  // Throws InputError with the pattern, the place and the reason if it does not compile or cannot be rewritten.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // What one thread needs to search. A Regex serves many threads, each with a Search of its own.
  class Search {
   public:
    explicit Search(const Regex& regex);
    ~Search();
    Search(Search&&) noexcept;
    Search& operator=(Search&&) noexcept;

    // The first match in `text` (valid UTF-8) that begins at or after `from`; false if there is none. Throws InputError
    // if the search takes more steps than any published pattern needs.
    bool find(std::string_view text, size_t from, size_t& begin, size_t& end);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A pattern that matches exactly `text`.
std::string quote_regex(std::string_view text);

}  // namespace nibble
