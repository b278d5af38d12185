#include "text/pre_tokenizer.h"

#include "base/error.h"
#include "text/byte_level.h"
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

PreTokenizer::PreTokenizer(const PreTokenizerSpec& spec) {
  constexpr size_t kMostSteps =
      64;  // each is a pass over the text, many a compiled pattern; published files have 1 to 4
  if (spec.size() > kMostSteps)
    throw_input_error("pre_tokenizer: {} steps, at most {} expected", spec.size(), kMostSteps);
  for (const PreTokenizerStep& step : spec) {
    steps_.push_back({step, regexes_.size()});
    if (const auto* split = std::get_if<SplitStep>(&step)) regexes_.emplace_back(split->pattern);
  }
  if (!steps_.empty() && std::holds_alternative<ByteLevelStep>(steps_.back().step)) steps_.pop_back();  // no one to see
}

PreTokenizer::Scratch PreTokenizer::make_scratch() const {
  Scratch scratch;
  scratch.searches.reserve(regexes_.size());
  for (const Regex& regex : regexes_) scratch.searches.emplace_back(regex);
  return scratch;
}

void PreTokenizer::cut_by(const SplitStep& step, Regex::Search& search, std::string_view piece,
                          std::vector<std::string_view>& cut) {
  Cutter cutter(piece, step.behavior, cut);
  // Everything before `done` has been cut. An empty match cuts, too, but not right behind another match.
  size_t done = 0, begin, end, last_end = std::string_view::npos;
  for (size_t from = 0; from <= piece.size() && search.find(piece, from, begin, end);) {
    if (begin == end && end == last_end) {
      from = end < piece.size() ? end + read_utf8(piece, end).num_bytes : piece.size() + 1;
      continue;
    }
    if (begin > done) cutter.add(done, begin, step.invert);
    cutter.add(begin, end, !step.invert);
    done = from = last_end = end;
  }
  if (done < piece.size()) cutter.add(done, piece.size(), step.invert);
}

namespace {

void apply_metaspace(const MetaspaceStep& step, bool is_first, std::vector<std::string_view>& pieces,
                     std::vector<std::string_view>& cut, std::deque<std::string>& storage) {
  const std::string_view mark = step.replacement;
  for (size_t i = 0; i < pieces.size(); i++) {
    std::string& text = storage.emplace_back();
    text.reserve(pieces[i].size() * 3 / 2 + mark.size());
    const bool may_prepend = step.prepend == MetaspaceStep::Prepend::always ||
                             (step.prepend == MetaspaceStep::Prepend::first && is_first && i == 0);
    if (may_prepend && !pieces[i].starts_with(mark) && !pieces[i].starts_with(' ')) text += mark;
    for (const char c : pieces[i]) {
      if (c == ' ') {
        text += mark;
      } else {
        text += c;
      }
    }
    const std::string_view piece = text;
    size_t begin = 0;
    for (size_t at; step.split && (at = piece.find(mark, begin + 1)) != std::string_view::npos; begin = at)
      cut.push_back(piece.substr(begin, at - begin));
    cut.push_back(piece.substr(begin));
  }
}

}  // namespace

void PreTokenizer::split(std::string_view text, bool is_first, Scratch& scratch) const {
  auto& [searches, pieces, cut, storage] = scratch;
  pieces.clear();
  if (!text.empty()) pieces.push_back(text);
  bool in_alphabet = false;
  for (const CompiledStep& compiled : steps_) {
    cut.clear();
    const char* const first = pieces.empty() ? nullptr : pieces[0].data();
    if (const auto* split = std::get_if<SplitStep>(&compiled.step)) {
      for (const std::string_view piece : pieces) cut_by(*split, searches[compiled.search], piece, cut);
      std::erase_if(cut, [](std::string_view piece) { return piece.empty(); });
      is_first = is_first && !cut.empty() && cut[0].data() == first;
    } else if (const auto* metaspace = std::get_if<MetaspaceStep>(&compiled.step)) {
      apply_metaspace(*metaspace, is_first, pieces, cut, storage);
    } else if (std::holds_alternative<PrefixSpaceStep>(compiled.step)) {
      for (const std::string_view piece : pieces)
        cut.push_back(piece.starts_with(' ') ? piece : storage.emplace_back(" " + std::string(piece)));
    } else {
      for (const std::string_view piece : pieces) cut.push_back(storage.emplace_back(byte_level_of_bytes(piece)));
      in_alphabet = true;
    }
    std::swap(pieces, cut);
  }
  if (!in_alphabet) return;
  for (std::string_view& piece : pieces) piece = storage.emplace_back(bytes_of_byte_level(piece).value_or(""));
}

}  // namespace nibble
