#include "weights/module_pattern.h"

#include <array>

#include "base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble {

namespace {

constexpr size_t kMaxPattern = 4096;
constexpr uint32_t kMatchLimit = 100'000;  // steps; published patterns take a few hundred
constexpr uint32_t kHeapLimit = 4096;      // KiB of a search

// \Q…\E quotes all but its own end.
std::string regex_of_glob(std::string_view glob) {
  std::string regex = "\\Q";
  for (const char c : glob) {
    if (c == '*')
      regex += "\\E.*\\Q";
    else if (c == '\\')
      regex += "\\E\\\\\\Q";
    else
      regex += c;
  }
  return regex + "\\E\\z";
}

}  // namespace

ModulePattern::ModulePattern(std::string_view pattern, std::string_view where)
    : where_(fmt::format("{}: the pattern {}", where, pattern.substr(0, 200))) {
  if (pattern.size() > kMaxPattern)
    throw_input_error("{} has {} bytes, at most {} are read", where_, pattern.size(), kMaxPattern);
  const std::string regex = pattern.starts_with("re:") ? std::string(pattern.substr(3)) : regex_of_glob(pattern);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(), PCRE2_ANCHORED, &error, &offset, nullptr);
  if (code == nullptr) {
    std::array<PCRE2_UCHAR, 160> reason{};
    pcre2_get_error_message(error, reason.data(), reason.size());
    throw_input_error("{} is not a regular expression: {} at character {}", where_,
                      reinterpret_cast<const char*>(reason.data()), offset);
  }
  code_ = std::shared_ptr<void>(code, [](void* compiled) { pcre2_code_free(static_cast<pcre2_code*>(compiled)); });
}

bool ModulePattern::matches(std::string_view module) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(pcre2_match_data_create(1, nullptr),
                                                                                  pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(limits.get(), kMatchLimit);
  pcre2_set_heap_limit(limits.get(), kHeapLimit);
  const int result =
      pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0, match.get(), limits.get());
  if (result < PCRE2_ERROR_NOMATCH)
    throw_input_error("{} takes more than {} steps on {}; write it more simply", where_, kMatchLimit, module);
  return result >= 0;
}

}  // namespace nibble
