#include "text/tokenizer.h"
#include "text/utf8.h"

namespace nibble {

std::string StreamDecoder::push(int32_t id) {
  tokenizer_->append_decoded(id, position_, held_);
  const size_t whole = held_.size() - incomplete_utf8_tail(held_);
  std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, whole));
  held_.erase(0, whole);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(held_);
  held_.clear();
  position_ = {};
  return text;
}

}  // namespace nibble
