#include "text/regex.h"

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <utility>

#include "base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble {

namespace {

constexpr size_t kMaxPattern = 64 << 10;
constexpr uint32_t kMatchLimit = 50'000'000;          // steps of one search
constexpr size_t kJitStackBytes = size_t{128} << 20;  // grows on demand; a match that needs more is an error

// A pattern may take time that grows with the square of the text. Published ones on published texts take 0.1 µs per
// byte; what takes a hundred times as much for a text, and a second on top, is an error. It is the thread's own time that
// counts: a busy machine changes nothing.
constexpr double kSecondsPerByte = 10e-6, kSecondsPerText = 1;
constexpr int kFindsAtOnce = 64;

double thread_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// How many places where a match may begin are tried between two looks at the clock: each may read the rest of the text.
size_t starts_at_once(size_t text_size) {
  return std::clamp<size_t>((size_t{64} << 20) / std::max<size_t>(text_size, 1), 16, 16384);
}

// Oniguruma counts six superscripts and fractions of Latin-1 as word characters, and no others.
constexpr const char* kWordClass = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

// Names of properties that Oniguruma knows by another name than PCRE2.
constexpr std::pair<std::string_view, std::string_view> kPropertyNames[] = {
    {"Letter", "L"},          {"Mark", "M"},      {"Number", "N"},        {"Punctuation", "P"},
    {"Symbol", "S"},          {"Separator", "Z"}, {"Other", "C"},         {"Alpha", "Alphabetic"},
    {"Space", "White_Space"}, {"Digit", "Nd"},    {"Upper", "Uppercase"}, {"Lower", "Lowercase"}};

bool compiles(const std::string& pattern) {
  int error;
  size_t offset;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                                   &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// Rewrites what Oniguruma and PCRE2 read differently: \s (PCRE2 adds U+180E), \w (PCRE2 leaves out marks), \h (a
// hexadecimal digit to Oniguruma, a blank to PCRE2), \p{Han} (PCRE2 adds the characters that a script shares with
// others). A set in a set is written out; one that takes another away, [a&&[^b]], becomes a look ahead. Negated sets
// inside sets have no counterpart otherwise.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string translate() {
    // White space at the end of a line: where a run's first character begins no match, no other one does. Without the
    // look behind each is tried, which takes the square of the run's length.
    if (pattern_ == "\\s+$") out_ = "(?<!\\p{White_Space})";
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '[') {
        out_ += read_set();
      } else if (pattern_[at_] == '\\' && at_ + 1 < pattern_.size()) {
        out_ += read_escape(false);
      } else {
        out_ += pattern_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  bool next_is(std::string_view text) const {
    return pattern_.substr(std::min(at_, pattern_.size())).starts_with(text);
  }

  std::string read_escape(bool in_set) {
    const char escaped = pattern_[at_ + 1];
    at_ += 2;
    switch (escaped) {
      case 's': return "\\p{White_Space}";
      case 'S': return "\\P{White_Space}";
      case 'w': return in_set ? kWordClass : fmt::format("[{}]", kWordClass);
      case 'h': return in_set ? "0-9a-fA-F" : "[0-9a-fA-F]";
      case 'W':
      case 'H':
        if (in_set) {
          throw_input_error("pattern '{}': \\{} inside a set is not supported; write the set out", pattern_, escaped);
        }
        return escaped == 'W' ? fmt::format("[^{}]", kWordClass) : "[^0-9a-fA-F]";
      case 'p':
      case 'P': return read_property(escaped);
      default: return {'\\', escaped};
    }
  }

  // The part after \p, which \p{^…} negates.
  std::string read_property(char letter) {
    const size_t close = pattern_.find('}', at_);
    if (!next_is("{") || close == std::string_view::npos) return {'\\', letter};
    std::string name(pattern_.substr(at_ + 1, close - at_ - 1));
    at_ = close + 1;
    const std::string negation = name.starts_with('^') ? "^" : "";
    name.erase(0, negation.size());
    for (const auto& [other, known] : kPropertyNames)
      if (name == other) name = known;
    if (name.size() > 2 && compiles("\\p{sc:" + name + "}")) name.insert(0, "sc:");
    return fmt::format("\\{}{{{}{}}}", letter, negation, name);
  }

  // One set with its brackets. In "[…]" a ']' in the first place is literal.
  std::string read_set() {
    if (++depth_ > kMaxNesting) refuse();
    std::string set = "[", conditions;
    at_++;
    const bool is_negated = next_is("^");
    if (is_negated) set += pattern_[at_++];
    for (bool is_first = true; at_ < pattern_.size(); is_first = false) {
      const char c = pattern_[at_];
      if (c == ']' && !is_first) {
        at_++;
        depth_--;
        return conditions.empty() ? set + ']' : fmt::format("(?:{}{}])", conditions, set);
      }
      if (c == '\\' && at_ + 1 < pattern_.size()) {
        set += read_escape(true);
      } else if (const size_t close = next_is("[:") ? pattern_.find(":]", at_ + 2) : std::string_view::npos;
                 close != std::string_view::npos) {
        set += pattern_.substr(at_, close + 2 - at_);  // a POSIX class such as [:alpha:]
        at_ = close + 2;
      } else if (next_is("&&[") && !is_negated && !is_first) {
        at_ += 2;
        const bool takes_away = next_is("[^");
        if (takes_away) at_++;  // read_set skips one character, whichever it is
        conditions += fmt::format("(?{}{})", takes_away ? '!' : '=', read_set());
        if (!next_is("]") && !next_is("&&[")) refuse();
      } else if (c == '[' && !next_is("[^")) {
        const std::string inner = read_set();
        if (!inner.starts_with('[') || !inner.ends_with(']')) refuse();
        set += inner.substr(1, inner.size() - 2);
      } else if (c == '[' || next_is("&&")) {
        refuse();
      } else {
        set += c;
        at_++;
      }
    }
    return set;  // never closed: PCRE2 says so
  }

  [[noreturn]] void refuse() const {
    throw_input_error("pattern '{}': offset {}: a set inside a set is not supported; write it as one set", pattern_,
                      at_);
  }

  static constexpr int kMaxNesting = 16;
  std::string_view pattern_;
  size_t at_ = 0;
  int depth_ = 0;
  std::string out_;
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::State {
  std::string pattern;
  pcre2_code* code = nullptr;
  bool has_jit = false;
  ~State() { pcre2_code_free(code); }
};

struct Regex::Search::State {
  const Regex::State* regex;
  pcre2_match_data* match = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  double start = thread_seconds();
  size_t longest_text = 0;
  int num_finds = 0;

  void check_time() const {
    if (thread_seconds() - start < kSecondsPerText + kSecondsPerByte * static_cast<double>(longest_text)) return;
    throw_input_error("pattern '{}': takes too long for a text of {} bytes", regex->pattern, longest_text);
  }
  ~State() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Regex(std::string_view pattern) : state_(std::make_unique<State>()) {
  if (pattern.size() > kMaxPattern) {
    throw_input_error("pattern: {} bytes, at most {} expected", pattern.size(), kMaxPattern);
  }
  state_->pattern = pattern;
  const std::string translated = Translator(pattern).translate();
  int error;
  size_t offset;
  state_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_USE_OFFSET_LIMIT, &error, &offset, nullptr);
  if (state_->code == nullptr) {
    throw_input_error("pattern '{}': offset {} of '{}': {}", pattern, offset, translated, error_text(error));
  }
  state_->has_jit = pcre2_jit_compile(state_->code, PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

Regex::Search::Search(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->regex = regex.state_.get();
  state_->match = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  if (state_->match == nullptr || state_->context == nullptr) throw_run_error("pattern: out of memory");
  pcre2_set_match_limit(state_->context, kMatchLimit);
  if (regex.state_->has_jit) {
    state_->stack = pcre2_jit_stack_create(size_t{32} << 10, kJitStackBytes, nullptr);
    if (state_->stack == nullptr) throw_run_error("pattern: out of memory");
    pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
  }
}

Regex::Search::~Search() = default;
Regex::Search::Search(Search&&) noexcept = default;
Regex::Search& Regex::Search::operator=(Search&&) noexcept = default;

bool Regex::Search::find(std::string_view text, size_t from, size_t& begin, size_t& end) {
  State& state = *state_;
  state.longest_text = std::max(state.longest_text, text.size());
  if (++state.num_finds % kFindsAtOnce == 0) state.check_time();
  const auto match = state.regex->has_jit ? pcre2_jit_match : pcre2_match;
  const size_t num_starts = starts_at_once(text.size());
  for (size_t first = from;; first += num_starts) {
    if (first > from) {
      state.check_time();
      while (first < text.size() && (static_cast<uint8_t>(text[first]) & 0xC0) == 0x80) first--;
    }
    pcre2_set_offset_limit(state.context, first + num_starts - 1);
    const int result = match(state.regex->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), first,
                             PCRE2_NO_UTF_CHECK, state.match, state.context);
    if (result == PCRE2_ERROR_NOMATCH && first + num_starts <= text.size()) continue;
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) {
      throw_input_error("pattern '{}': text of {} bytes: {}", state.regex->pattern, text.size(), error_text(result));
    }
    break;
  }
  const size_t* offsets = pcre2_get_ovector_pointer(state.match);
  begin = offsets[0];
  end = offsets[1];
  if (end < begin) begin = end;  // \K in a lookahead can turn a match around
  return true;
}

std::string quote_regex(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\^$.[]|()?*+{}-&#/").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace nibble
