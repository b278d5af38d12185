#include "text/pre_tokenizer.h"

#include "base/error.h"
#include "text/utf8.h"

namespace nibble {

const char* const kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Receives the parts of a piece in order and puts those that belong together into one. A part may be empty: it still
// decides whether the part after it joins the one before.
class Cutter {
 public:
  Cutter(std::string_view piece, SplitBehavior behavior, std::vector<std::string_view>& out)
      : piece_(piece), behavior_(behavior), out_(out) {}

  void add(size_t begin, size_t end, bool is_match) {
    bool joins = false;  // whether this part continues the piece that the last part is in
    switch (behavior_) {
      case SplitBehavior::removed:
        if (is_match) return;
        break;
      case SplitBehavior::isolated: break;
      case SplitBehavior::merged_with_previous: joins = is_match && !last_is_match_; break;
      case SplitBehavior::merged_with_next: joins = !is_match && last_is_match_; break;
      case SplitBehavior::contiguous: joins = is_match == last_is_match_; break;
    }
    if (joins && any_) {
      out_.back() = piece_.substr(out_.back().data() - piece_.data(), end - (out_.back().data() - piece_.data()));
    } else {
      out_.push_back(piece_.substr(begin, end - begin));
    }
    any_ = true;
    last_is_match_ = is_match;
  }

 private:
  std::string_view piece_;
  SplitBehavior behavior_;
  std::vector<std::string_view>& out_;
  bool any_ = false, last_is_match_ = false;
};

}  // namespace

PreTokenizer::PreTokenizer(const PreTokenizerSpec& spec)
    : add_prefix_space_(spec.add_prefix_space), prefix_step_(spec.prefix_step) {
  constexpr size_t kMaxSteps =
      64;  // each costs a pass over the text and a compiled pattern; published files have up to 4
  if (spec.steps.size() > kMaxSteps)
    throw_input_error("pre_tokenizer: {} steps, at most {} expected", spec.steps.size(), kMaxSteps);
  for (const SplitStep& step : spec.steps) steps_.push_back({Regex(step.pattern), step.behavior, step.invert});
}

PreTokenizer::Scratch PreTokenizer::make_scratch() const {
  Scratch scratch;
  for (const CompiledStep& step : steps_) scratch.searches.emplace_back(step.regex);
  return scratch;
}

void PreTokenizer::split(std::string_view text, Scratch& scratch) const {
  auto& [searches, pieces, cut, storage] = scratch;
  pieces.clear();
  if (!text.empty()) pieces.push_back(text);
  for (size_t s = 0; s <= steps_.size(); s++) {
    if (add_prefix_space_ && s == prefix_step_) {
      for (std::string_view& piece : pieces)
        if (!piece.starts_with(' ')) piece = storage.emplace_back(" " + std::string(piece));
    }
    if (s == steps_.size()) break;
    cut.clear();
    for (const std::string_view piece : pieces) {
      Cutter cutter(piece, steps_[s].behavior, cut);
      // Everything before `done` has been cut. An empty match cuts, too, but not right behind another match.
      size_t done = 0, begin, end, last_end = std::string_view::npos;
      for (size_t from = 0; from <= piece.size() && searches[s].find(piece, from, begin, end);) {
        if (begin == end && end == last_end) {
          from = end < piece.size() ? end + read_utf8(piece, end).num_bytes : piece.size() + 1;
          continue;
        }
        if (begin > done) cutter.add(done, begin, steps_[s].invert);
        cutter.add(begin, end, !steps_[s].invert);
        done = from = last_end = end;
      }
      if (done < piece.size()) cutter.add(done, piece.size(), steps_[s].invert);
    }
    std::erase_if(cut, [](std::string_view piece) { return piece.empty(); });
    std::swap(pieces, cut);
  }
}

}  // namespace nibble
