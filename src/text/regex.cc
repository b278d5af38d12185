#include "text/regex.h"

#include "base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble {

namespace {

constexpr size_t kMaxPattern = 64 << 10;
constexpr uint32_t kMatchLimit = 50'000'000;         // steps of one search
constexpr size_t kJitStackBytes = size_t{16} << 20;  // grows on demand; a match that needs more is an error

// Oniguruma counts six superscripts and fractions of Latin-1 as word characters, and no others.
constexpr const char* kWordClass = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

// Rewrites what Oniguruma and PCRE2 read differently: \s (PCRE2 adds U+180E), \w (PCRE2 leaves out marks), \h (a
// hexadecimal digit to Oniguruma, a blank to PCRE2). Sets inside sets have no counterpart.
std::string to_pcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  size_t class_begin = 0;  // where the first character of the class stands: a ']' there is literal
  for (size_t i = 0; i < pattern.size(); i++) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      switch (escaped) {
        case 's': out += "\\p{White_Space}"; break;
        case 'S': out += "\\P{White_Space}"; break;
        case 'w': out += in_class ? kWordClass : fmt::format("[{}]", kWordClass); break;
        case 'h': out += in_class ? "0-9a-fA-F" : "[0-9a-fA-F]"; break;
        case 'W':
        case 'H':
          if (in_class) {
            throw_input_error("split pattern '{}': \\{} inside a set is not supported; write the set out", pattern,
                              escaped);
          }
          out += escaped == 'W' ? fmt::format("[^{}]", kWordClass) : "[^0-9a-fA-F]";
          break;
        default: out += {'\\', escaped};
      }
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      class_begin = i + 1;
      if (class_begin < pattern.size() && pattern[class_begin] == '^') class_begin++;
    } else if (in_class && c == ']' && i != class_begin) {
      in_class = false;
    } else if (in_class && c == '[' && i + 1 < pattern.size() && pattern[i + 1] == ':') {
      const size_t close = pattern.find(":]", i + 2);  // a POSIX class such as [:alpha:]
      if (close != std::string_view::npos) {
        out.append(pattern, i, close + 2 - i);
        i = close + 1;
        continue;
      }
    } else if (in_class && (c == '[' || (c == '&' && i + 1 < pattern.size() && pattern[i + 1] == '&'))) {
      throw_input_error("split pattern '{}': offset {}: a set inside a set is not supported; write it as one set",
                        pattern, i);
    }
    out += c;
  }
  return out;
}

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
  ~State() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Regex(std::string_view pattern) : state_(std::make_unique<State>()) {
  if (pattern.size() > kMaxPattern) {
    throw_input_error("split pattern: {} bytes, at most {} expected", pattern.size(), kMaxPattern);
  }
  state_->pattern = pattern;
  const std::string translated = to_pcre2(pattern);
  int error;
  size_t offset;
  state_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr);
  if (state_->code == nullptr) {
    throw_input_error("split pattern '{}': offset {} of '{}': {}", pattern, offset, translated, error_text(error));
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
  if (state_->match == nullptr || state_->context == nullptr) throw_run_error("split pattern: out of memory");
  pcre2_set_match_limit(state_->context, kMatchLimit);
  if (regex.state_->has_jit) {
    state_->stack = pcre2_jit_stack_create(size_t{32} << 10, kJitStackBytes, nullptr);
    if (state_->stack == nullptr) throw_run_error("split pattern: out of memory");
    pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
  }
}

Regex::Search::~Search() = default;
Regex::Search::Search(Search&&) noexcept = default;
Regex::Search& Regex::Search::operator=(Search&&) noexcept = default;

bool Regex::Search::find(std::string_view text, size_t from, size_t& begin, size_t& end) {
  const auto match = state_->regex->has_jit ? pcre2_jit_match : pcre2_match;
  const int result = match(state_->regex->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                           PCRE2_NO_UTF_CHECK, state_->match, state_->context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw_input_error("split pattern '{}': text of {} bytes: {}", state_->regex->pattern, text.size(),
                      error_text(result));
  }
  const size_t* offsets = pcre2_get_ovector_pointer(state_->match);
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
