#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace nibble {

namespace {

bool touches_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word_character(read_utf8(text, utf8_before(text, begin)).code_point)) ||
         (end < text.size() && is_word_character(read_utf8(text, end).code_point));
}

size_t skip_space_left(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const size_t before = utf8_before(text, begin);
    if (!is_white_space(read_utf8(text, before).code_point)) break;
    begin = before;
  }
  return std::max(begin, limit);
}

size_t skip_space_right(std::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Step step = read_utf8(text, end);
    if (!is_white_space(step.code_point)) break;
    end += step.num_bytes;
  }
  return end;
}

}  // namespace

int32_t AddedTokenMatcher::step(int32_t node, uint8_t byte) const {
  const auto child = children_.find(static_cast<uint64_t>(node) << 8 | byte);
  return child == children_.end() ? -1 : child->second;
}

void AddedTokenMatcher::add(std::string_view content, const AddedToken& token) {
  if (content.empty()) return;  // would match everywhere; the reference leaves it out as well
  if (content.size() > kMaxContent) {
    throw_input_error("added token {}: content of {} bytes, at most {} expected", token.id, content.size(),
                      kMaxContent);
  }
  int32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t child = step(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back(-1);
      children_.emplace(static_cast<uint64_t>(node) << 8 | byte, child);
    }
    node = child;
  }
  begins_[static_cast<uint8_t>(content[0])] = true;
  nodes_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

size_t AddedTokenMatcher::longest_at(std::string_view text) const {
  if (text.empty() || !begins_[static_cast<uint8_t>(text[0])]) return 0;
  int32_t node = 0;
  size_t longest = 0;
  for (size_t i = 0; i < text.size(); i++) {
    node = step(node, static_cast<uint8_t>(text[i]));
    if (node < 0) break;
    if (nodes_[node] >= 0) longest = i + 1;
  }
  return longest;
}

void AddedTokenMatcher::split(std::string_view text, std::vector<TextPart>& parts) const {
  size_t done = 0;  // everything before it is in `parts`
  for (size_t at = 0; at < text.size() && !tokens_.empty();) {
    if (!begins_[static_cast<uint8_t>(text[at])]) {
      at++;
      continue;
    }
    int32_t node = 0, found = -1;
    size_t end = at;
    for (size_t i = at; i < text.size(); i++) {
      node = step(node, static_cast<uint8_t>(text[i]));
      if (node < 0) break;
      if (nodes_[node] >= 0) {
        found = nodes_[node];
        end = i + 1;
      }
    }
    if (found < 0) {
      at++;
      continue;
    }
    const AddedToken& token = tokens_[found];
    if (token.single_word && touches_word(text, at, end)) {
      at = end;
      continue;
    }
    const size_t begin = token.strip_left ? skip_space_left(text, at, done) : at;
    if (token.strip_right) end = skip_space_right(text, end);
    if (begin > done) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = at = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
}

}  // namespace nibble
