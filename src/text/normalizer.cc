#include "text/normalizer.h"

#include <algorithm>
#include <memory>

#include <utf8proc.h>

#include "base/error.h"
#include "text/utf8.h"

namespace nibble {

namespace {

constexpr size_t kMaxSteps = 64;  // published files have up to 8

// Replacements come from a file, and a chain of them could double a text with every step.
void check_growth(size_t num_bytes, size_t max_bytes) {
  if (num_bytes > max_bytes)
    throw_input_error("normalizer: the replacements make more than {} bytes of a text, which no published ones do",
                      max_bytes);
}

std::string unicode_form(std::string_view text, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  if (size < 0) throw_input_error("text of {} bytes: normalization: {}", text.size(), utf8proc_errmsg(size));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  return {reinterpret_cast<const char*>(mapped), static_cast<size_t>(size)};
}

// `text` with `change(code point, out)` deciding what stands for each character.
template <class Change>
std::string map_characters(std::string_view text, Change change) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    change(step.code_point, out);
    at += step.num_bytes;
  }
  return out;
}

bool is_mark(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

void append_lowercase(char32_t c, std::string& out) {
  if (c == 0x130) {  // the one character whose lower case is two
    out += "i\u0307";
    return;
  }
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

void append_nmt(char32_t c, std::string& out) {
  const bool vanishes =
      (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
  const bool is_space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                        (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF ||
                        c == 0xFFFD;
  if (!vanishes) append_utf8(out, is_space ? U' ' : c);
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = read_utf8(text, 0);
    if (!is_white_space(step.code_point)) break;
    text.remove_prefix(step.num_bytes);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    const size_t last = utf8_before(text, text.size());
    if (!is_white_space(read_utf8(text, last).code_point)) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content, size_t max_bytes) {
  std::string out;
  Regex::Search search(regex);
  size_t done = 0, begin, end;
  for (size_t from = 0; from <= text.size() && search.find(text, from, begin, end);) {
    out.append(text, done, begin - done);
    out += content;
    check_growth(out.size(), max_bytes);
    done = from = end;
    if (begin < end) continue;
    if (end == text.size()) break;
    from = end + read_utf8(text, end).num_bytes;  // an empty match: the search goes on behind the next character
  }
  return out.append(text, done);
}

// The Hugging Face library looks up whole graphemes of less than 6 bytes, then single characters; what begins with a
// key is replaced whole.
std::string apply_by_grapheme(std::string_view text, const Charsmap& charsmap, size_t max_bytes) {
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    utf8proc_int32_t state = 0;
    Utf8Step step = read_utf8(text, begin);
    size_t end = begin + step.num_bytes;
    while (end < text.size()) {
      const Utf8Step next = read_utf8(text, end);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(step.code_point),
                                           static_cast<utf8proc_int32_t>(next.code_point), &state))
        break;
      step = next;
      end += next.num_bytes;
    }
    check_growth(out.size(), text.size());
    const std::string_view grapheme = text.substr(begin, end - begin);
    begin = end;
    if (grapheme.size() < 6) {
      if (const auto match = charsmap.shortest(grapheme); match.num_bytes > 0) {
        out += match.replacement;
        check_growth(out.size(), max_bytes);
        continue;
      }
    }
    for (size_t at = 0; at < grapheme.size();) {
      const std::string_view character = grapheme.substr(at, read_utf8(grapheme, at).num_bytes);
      const auto match = charsmap.shortest(character);
      out += match.num_bytes > 0 ? match.replacement : character;
      check_growth(out.size(), max_bytes);
      at += character.size();
    }
  }
  return out;
}

std::string apply_sentencepiece(std::string_view text, const Charsmap& charsmap, const AddedTokenMatcher& kept,
                                const SpaceRules& rules, size_t max_bytes) {
  const std::string_view space = rules.escape ? kSpaceSymbol : " ";
  const auto next = [&](std::string_view rest) -> std::pair<std::string_view, size_t> {
    if (const size_t size = kept.longest_at(rest); size > 0) return {rest.substr(0, size), size};
    if (const auto match = charsmap.longest(rest); match.num_bytes > 0) return {match.replacement, match.num_bytes};
    const Utf8Step step = read_utf8(rest, 0);
    if (step.state != Utf8State::valid) return {"\uFFFD", 1};
    return {rest.substr(0, step.num_bytes), step.num_bytes};
  };
  while (rules.remove_extra && !text.empty()) {
    const auto [piece, num_bytes] = next(text);
    if (piece != " ") break;
    text.remove_prefix(num_bytes);
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (rules.add_prefix && !rules.as_suffix) out += space;
  for (bool after_space = rules.remove_extra; !text.empty();) {
    auto [piece, num_bytes] = next(text);
    text.remove_prefix(num_bytes);
    while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
    for (const char c : piece) {
      if (c == ' ') {
        out += space;
      } else {
        out += c;
      }
    }
    check_growth(out.size(), max_bytes);
    if (!piece.empty()) after_space = rules.remove_extra && piece.ends_with(' ');
  }
  while (rules.remove_extra && out.ends_with(space)) out.resize(out.size() - space.size());
  if (rules.add_prefix && rules.as_suffix) out += space;
  return out;
}

// Whether every character is below U+0300, where composed text is the rule: U+0300 begins with the byte CC.
bool is_composed(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) >= 0xCC; });
}

bool is_ascii(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) >= 0x80; });
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content, size_t max_bytes) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t at; !pattern.empty() && (at = text.find(pattern, done)) != std::string_view::npos;) {
    out.append(text, done, at - done);
    out += content;
    check_growth(out.size(), max_bytes);
    done = at + pattern.size();
  }
  return out.append(text, done);
}

Normalizer::Normalizer(const NormalizerSpec& spec) {
  if (spec.size() > kMaxSteps) throw_input_error("normalizer: {} steps, at most {} expected", spec.size(), kMaxSteps);
  for (const NormalizerStep& step : spec) {
    CompiledStep compiled{step, {}, {}, {}};
    if (step.kind == NormalizerKind::replace && !step.is_literal) compiled.regex.emplace_back(step.text);
    const bool has_charsmap =
        step.kind == NormalizerKind::precompiled || (step.kind == NormalizerKind::sentencepiece && !step.text.empty());
    if (has_charsmap) compiled.charsmap = Charsmap(step.text, "normalizer");
    for (const std::string& token : step.kept) compiled.kept.add(token, {.id = 0, .content = token});
    steps_.push_back(std::move(compiled));
  }
}

std::string Normalizer::apply_step(const CompiledStep& compiled, std::string_view text, size_t max_bytes) {
  const NormalizerStep& step = compiled.step;
  switch (step.kind) {
    case NormalizerKind::nfc: return unicode_form(text, UTF8PROC_COMPOSE);
    case NormalizerKind::nfd: return unicode_form(text, UTF8PROC_DECOMPOSE);
    case NormalizerKind::nfkc: return unicode_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case NormalizerKind::nfkd: return unicode_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    case NormalizerKind::lowercase: return map_characters(text, append_lowercase);
    case NormalizerKind::strip_accents:
      return map_characters(text, [](char32_t c, std::string& out) {
        if (!is_mark(c)) append_utf8(out, c);
      });
    case NormalizerKind::strip_left: return std::string(strip_left(text));
    case NormalizerKind::strip_right: return std::string(strip_right(text));
    case NormalizerKind::prepend: return text.empty() ? std::string() : step.text + std::string(text);
    case NormalizerKind::replace:
      return step.is_literal ? replace_all(text, step.text, step.content, max_bytes)
                             : replace_matches(text, compiled.regex[0], step.content, max_bytes);
    case NormalizerKind::nmt: return map_characters(text, append_nmt);
    case NormalizerKind::precompiled: return apply_by_grapheme(text, compiled.charsmap, max_bytes);
    case NormalizerKind::sentencepiece:
      return apply_sentencepiece(text, compiled.charsmap, compiled.kept, step.spaces, max_bytes);
  }
  return {};
}

std::string_view Normalizer::apply(std::string_view text, std::deque<std::string>& storage) const {
  const size_t max_bytes = 64 * text.size() + 65536;  // Unicode's own forms make up to 18 characters of one
  for (const CompiledStep& compiled : steps_) {
    const NormalizerKind kind = compiled.step.kind;
    const bool changes_nothing = (kind == NormalizerKind::nfc && is_composed(text)) ||
                                 ((kind == NormalizerKind::nfd || kind == NormalizerKind::nfkc ||
                                   kind == NormalizerKind::nfkd || kind == NormalizerKind::strip_accents) &&
                                  is_ascii(text));
    if (changes_nothing) continue;
    text = storage.emplace_back(apply_step(compiled, text, max_bytes));
    check_growth(text.size(), max_bytes);
    if (!is_utf8(text)) text = storage.emplace_back(replace_invalid_utf8(text));  // a charsmap may hold anything
  }
  return text;
}

}  // namespace nibble
