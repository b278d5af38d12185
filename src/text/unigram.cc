#include "text/unigram.h"

#include <algorithm>

#include "text/hash_slots.h"
#include "text/utf8.h"

namespace nibble {

namespace {

constexpr double kUnknownPenalty = 10;

}  // namespace

Unigram::Unigram(std::span<const UnigramToken> tokens, UnigramOptions options)
    : nodes_(1), options_(std::move(options)) {
  size_t num_bytes = 0;
  for (const UnigramToken& token : tokens) num_bytes += token.text.size();
  children_.assign(num_slots_for(num_bytes), {kNoKey, -1});
  for (const UnigramToken& token : tokens) {
    int32_t node = 0;
    for (const char byte : token.text) {
      const uint64_t key = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
      const size_t at = find_slot(children_, key);
      if (children_[at].key == kNoKey) {
        children_[at] = {key, static_cast<int32_t>(nodes_.size())};
        nodes_.emplace_back();
      }
      node = children_[at].node;
    }
    if (node != 0) nodes_[node] = {token.id, token.score};
  }
}

int32_t Unigram::child(int32_t node, uint8_t byte) const {
  const uint64_t key = static_cast<uint64_t>(node) << 8 | byte;
  return children_[find_slot(children_, key)].node;  // -1 in an empty slot
}

template <class Real>
void Unigram::find_best(std::string_view text, Scratch& scratch) const {
  auto& best = scratch.best;
  best.assign(text.size() + 1, {-1, -1, 0});
  const Real unknown_score = static_cast<Real>(options_.lowest) - static_cast<Real>(kUnknownPenalty);
  const auto offer = [&](size_t begin, size_t end, int32_t id, Real score) {
    const Real sum = score + static_cast<Real>(best[begin].score);
    if (best[end].begin < 0 || sum > static_cast<Real>(best[end].score))
      best[end] = {static_cast<int32_t>(begin), id, static_cast<double>(sum)};
  };
  for (size_t at = 0; at < text.size();) {
    const size_t character = read_utf8(text, at).num_bytes;
    bool has_single = false;
    int32_t node = 0;
    for (size_t i = at; i < text.size(); i++) {
      node = child(node, static_cast<uint8_t>(text[i]));
      if (node < 0) break;
      if (nodes_[node].id < 0) continue;
      offer(at, i + 1, nodes_[node].id, static_cast<Real>(nodes_[node].score));
      has_single |= i + 1 == at + character;
    }
    if (!has_single) offer(at, at + character, -1, unknown_score);
    at += character;
  }
}

void Unigram::encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  if (options_.single_precision) {
    find_best<float>(text, scratch);
  } else {
    find_best<double>(text, scratch);
  }
  // `found` runs from the end of the text to its beginning: ends of tokens.
  auto& found = scratch.found;
  found.clear();
  for (auto end = static_cast<int32_t>(text.size()); end > 0; end = scratch.best[end].begin) found.push_back(end);
  std::reverse(found.begin(), found.end());
  bool after_unknown = false;
  for (const int32_t end : found) {
    const auto& [begin, id, score] = scratch.best[end];
    if (id >= 0) {
      ids.push_back(id);
    } else if (!options_.fallback.empty()) {
      for (int32_t i = begin; i < end; i++) ids.push_back(options_.fallback[static_cast<uint8_t>(text[i])]);
    } else if (options_.unknown >= 0 && !(after_unknown && options_.fuse_unknown)) {
      ids.push_back(options_.unknown);
    }
    after_unknown = id < 0;
  }
}

}  // namespace nibble
