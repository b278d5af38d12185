#include "text/bpe.h"

#include <algorithm>
#include <functional>
#include <string>

#include "text/hash_slots.h"
#include "text/utf8.h"

namespace nibble {

namespace {

constexpr size_t kScanLimit = 16;

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

CharacterTable::CharacterTable(std::span<const std::pair<char32_t, int32_t>> characters) : ids_(256, -1) {
  for (const auto& [c, id] : characters) {
    const size_t page = c >> 8;
    if (page >= pages_.size()) pages_.resize(page + 1, 0);
    if (pages_[page] == 0) {
      pages_[page] = static_cast<uint32_t>(ids_.size());
      ids_.resize(ids_.size() + 256, -1);
    }
    ids_[pages_[page] + (c & 0xFF)] = id;
  }
}

Bpe::Bpe(std::span<const BpeMerge> merges, const BpeSymbols& symbols)
    : symbols_(symbols), characters_(symbols.characters) {
  slots_.assign(num_slots_for(merges.size()), {kNoKey, kNoRank, -1});
  for (const BpeMerge& merge : merges) {
    const uint64_t pair = pair_of(merge.left, merge.right);
    num_ranks_ = std::max(num_ranks_, merge.rank + 1);
    slots_[find_slot(slots_, pair)] = {pair, merge.rank, merge.result};  // the last of equal merges counts
  }
}

const Bpe::Slot& Bpe::find(int32_t left, int32_t right) const {
  return slots_[find_slot(slots_, pair_of(left, right))];  // an empty slot has no rank
}

void Bpe::read_bytes(std::string_view word, Scratch& scratch) const {
  bool after_unknown = false;
  for (const char byte : word) {
    int32_t id = symbols_.bytes[static_cast<uint8_t>(byte)];
    const bool is_unknown = id < 0;
    if (is_unknown) id = after_unknown && symbols_.fuse_unknown ? -1 : symbols_.unknown;
    after_unknown = is_unknown;
    if (id >= 0) scratch.push(id);
  }
}

void Bpe::read_characters(std::string_view word, Scratch& scratch) const {
  bool owes_unknown = false;  // written when the next known character comes, after bytes that come before it
  for (size_t at = 0; at < word.size();) {
    const Utf8Step step = read_utf8(word, at);
    const std::string_view bytes = word.substr(at, step.num_bytes);
    at += step.num_bytes;
    const int32_t id = characters_.find(step.code_point);
    if (id < 0 && symbols_.late_unknown) {
      scratch.push(BpeSymbols::kCharacterBase + static_cast<int32_t>(step.code_point));
      continue;
    }
    const auto token_of = [&](char byte) { return symbols_.fallback[static_cast<uint8_t>(byte)]; };
    if (id < 0 && symbols_.has_fallback &&
        std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return token_of(byte) >= 0; })) {
      for (const char byte : bytes) scratch.push(token_of(byte));
      continue;
    }
    if (id < 0 && symbols_.unknown < 0) continue;
    if (owes_unknown && (id >= 0 || !symbols_.fuse_unknown)) scratch.push(symbols_.unknown);
    owes_unknown = id < 0;
    if (id >= 0) scratch.push(id);
  }
  if (owes_unknown) scratch.push(symbols_.unknown);
}

// Turns symbols of characters without a token, from ids[first] on, into bytes or the unknown token.
void Bpe::append_late(std::vector<int32_t>& ids, size_t first) const {
  const auto has_no_token = [](int32_t id) { return id >= BpeSymbols::kCharacterBase; };
  if (std::none_of(ids.begin() + static_cast<ptrdiff_t>(first), ids.end(), has_no_token)) return;
  const std::vector<int32_t> merged(ids.begin() + static_cast<ptrdiff_t>(first), ids.end());
  ids.resize(first);
  bool after_unknown = false;
  for (const int32_t id : merged) {
    const bool is_unknown = has_no_token(id);
    if (!is_unknown) ids.push_back(id);
    std::string bytes;
    if (is_unknown) append_utf8(bytes, static_cast<char32_t>(id - BpeSymbols::kCharacterBase));
    bool all = symbols_.has_fallback;
    for (const char byte : bytes) all = all && symbols_.fallback[static_cast<uint8_t>(byte)] >= 0;
    if (is_unknown && all) {
      for (const char byte : bytes) ids.push_back(symbols_.fallback[static_cast<uint8_t>(byte)]);
    } else if (is_unknown && symbols_.unknown >= 0 && !(after_unknown && symbols_.fuse_unknown)) {
      ids.push_back(symbols_.unknown);
    }
    after_unknown = is_unknown;
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  if (symbols_.of_bytes) {
    read_bytes(word, scratch);
  } else {
    read_characters(word, scratch);
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  const size_t first = ids.size();
  if (symbols.size() <= kScanLimit) {
    merge_by_scan(scratch, ids);
  } else {
    merge_by_rank(scratch, ids);
  }
  if (symbols_.late_unknown) append_late(ids, first);
}

void Bpe::merge_by_scan(Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  auto& ranks = scratch.ranks;  // of the pair that begins at each symbol
  ranks.assign(symbols.size(), kNoRank);
  for (size_t i = 0; i + 1 < symbols.size(); i++) ranks[i] = find(symbols[i].id, symbols[i + 1].id).rank;
  size_t count = symbols.size();
  while (count > 1) {
    const size_t best = std::min_element(ranks.begin(), ranks.begin() + count) - ranks.begin();
    if (ranks[best] == kNoRank) break;
    symbols[best].id = find(symbols[best].id, symbols[best + 1].id).result;
    for (size_t i = best + 1; i + 1 < count; i++) {
      symbols[i].id = symbols[i + 1].id;
      ranks[i] = ranks[i + 1];
    }
    count--;
    ranks[best] = best + 1 < count ? find(symbols[best].id, symbols[best + 1].id).rank : kNoRank;
    if (best > 0) ranks[best - 1] = find(symbols[best - 1].id, symbols[best].id).rank;
  }
  for (size_t i = 0; i < count; i++) ids.push_back(symbols[i].id);
}

void Bpe::merge_by_rank(Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& [symbols, candidates, last_of_rank, open_ranks, batch, early, ranks] = scratch;
  candidates.clear();
  last_of_rank.resize(num_ranks_, -1);
  int32_t current = -1;  // the rank at work
  const auto find_pair = [&](int32_t at) {
    const int32_t left = symbols[at].id, right = symbols[symbols[at].next].id;
    const int32_t rank = find(left, right).rank;
    if (rank == kNoRank) return;
    if (rank <= current) {
      early.push_back({rank, at});
      std::push_heap(early.begin(), early.end(), std::greater<>());
      return;
    }
    if (last_of_rank[rank] < 0) {
      open_ranks.push_back(rank);
      if (current >= 0) std::push_heap(open_ranks.begin(), open_ranks.end(), std::greater<>());
    }
    candidates.push_back({at, left, right, last_of_rank[rank]});
    last_of_rank[rank] = static_cast<int32_t>(candidates.size() - 1);
  };
  const auto merge = [&](int32_t at) {
    const int32_t next = symbols[at].next;
    symbols[at].id = find(symbols[at].id, symbols[next].id).result;
    symbols[at].next = symbols[next].next;
    symbols[next].id = -1;
    if (symbols[at].next >= 0) {
      symbols[symbols[at].next].previous = at;
      find_pair(at);
    }
    if (symbols[at].previous >= 0) find_pair(symbols[at].previous);
  };
  // Pairs found early, up to a place: their rank is not above the current one, so that what stands there now decides.
  const auto merge_early = [&](Scratch::Place until) {
    while (!early.empty() && until > early.front()) {
      const auto [rank, at] = early.front();
      std::pop_heap(early.begin(), early.end(), std::greater<>());
      early.pop_back();
      const bool is_pair = symbols[at].id >= 0 && symbols[at].next >= 0;
      if (is_pair && find(symbols[at].id, symbols[symbols[at].next].id).rank == rank) merge(at);
    }
  };

  for (int32_t at = 0; symbols[at].next >= 0; at = symbols[at].next) find_pair(at);
  std::make_heap(open_ranks.begin(), open_ranks.end(), std::greater<>());
  while (!open_ranks.empty()) {
    current = open_ranks.front();
    std::pop_heap(open_ranks.begin(), open_ranks.end(), std::greater<>());
    open_ranks.pop_back();
    batch.clear();
    for (int32_t i = last_of_rank[current]; i >= 0; i = candidates[i].next) batch.push_back(i);
    last_of_rank[current] = -1;
    std::sort(batch.begin(), batch.end(), [&](int32_t a, int32_t b) { return candidates[a].at < candidates[b].at; });
    for (const int32_t i : batch) {
      const auto [at, left, right, next_candidate] = candidates[i];
      merge_early({current, at});
      const int32_t next = symbols[at].next;
      if (symbols[at].id == left && next >= 0 && symbols[next].id == right) merge(at);
    }
    merge_early({kNoRank, 0});
  }
  for (int32_t at = 0; at >= 0; at = symbols[at].next) ids.push_back(symbols[at].id);
}

}  // namespace nibble
