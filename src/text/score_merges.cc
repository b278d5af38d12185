#include "text/score_merges.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "text/utf8.h"

namespace nibble {

namespace {

constexpr size_t kMaxToken = 1024;

}  // namespace

std::vector<BpeMerge> merges_of_scores(std::span<const ScoredToken> tokens) {
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(tokens.size());
  for (const ScoredToken& token : tokens) {
    if (token.text.size() > kMaxToken) {
      throw_input_error("vocabulary: token {} has {} bytes, at most {} expected in a vocabulary with scores", token.id,
                        token.text.size(), kMaxToken);
    }
    ids.emplace(token.text, token.id);
  }
  const auto symbol_of = [&](std::string_view text) -> int32_t {
    if (const auto known = ids.find(text); known != ids.end()) return known->second;
    const Utf8Step step = read_utf8(text, 0);
    if (step.state != Utf8State::valid || step.num_bytes != text.size()) return -1;
    return BpeSymbols::kCharacterBase + static_cast<int32_t>(step.code_point);
  };

  std::vector<double> scores;
  for (const ScoredToken& token : tokens) scores.push_back(token.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());

  std::vector<BpeMerge> merges;
  for (const ScoredToken& token : tokens) {
    if (ids.at(token.text) != token.id) continue;  // written twice: the first one counts
    const auto rank = std::lower_bound(scores.begin(), scores.end(), token.score, std::greater<>()) - scores.begin();
    for (size_t cut = 1; cut < token.text.size(); cut++) {
      if ((static_cast<uint8_t>(token.text[cut]) & 0xC0) == 0x80) continue;
      const int32_t left = symbol_of(token.text.substr(0, cut));
      const int32_t right = left < 0 ? -1 : symbol_of(token.text.substr(cut));
      if (right >= 0) merges.push_back({left, right, token.id, static_cast<int32_t>(rank)});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const BpeMerge& a, const BpeMerge& b) {
    return std::tie(a.rank, a.result, a.left) < std::tie(b.rank, b.result, b.left);
  });
  return merges;
}

}  // namespace nibble
