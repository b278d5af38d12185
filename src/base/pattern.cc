#include "base/pattern.h"

#include "base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble {

namespace {

constexpr size_t kMaxExpression = 4096;
// Steps of one match: "re:.*a.*b" on a name of 100 bytes takes 5000 at most.
constexpr uint32_t kMatchLimit = 20'000;
constexpr uint32_t kHeapLimit = 1024;  // KiB

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

Pattern::Pattern(std::string_view expression) : expression_(expression) {
  if (expression.size() > kMaxExpression)
    throw_input_error("the pattern {}… has {} bytes, at most {} are read", expression.substr(0, 40), expression.size(),
                      kMaxExpression);
  int error;
  size_t offset;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                   PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr)
    throw_input_error("the pattern {} is not a regular expression: {} at byte {}", expression, error_text(error),
                      offset);
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

bool Pattern::matches_start(std::string_view name) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(pcre2_match_data_create(1, nullptr),
                                                                                  pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (match == nullptr || context == nullptr) throw_run_error("no memory to match the pattern {}", expression_);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimit);
  const int result =
      pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, match.get(), context.get());
  if (result < 0 && result != PCRE2_ERROR_NOMATCH)
    throw_input_error("the pattern {} cannot be matched with {}: {}; write it more simply", expression_, name,
                      error_text(result));
  return result >= 0;
}

bool glob_matches(std::string_view glob, std::string_view name) {
  // Only the last * ever has to take more: an earlier one would leave less for it.
  size_t g = 0, n = 0, star = std::string_view::npos, taken = 0;
  while (n < name.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      taken = n;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == name[n])) {
      g++;
      n++;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      n = ++taken;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') g++;
  return g == glob.size();
}

}  // namespace nibble
