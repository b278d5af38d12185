#include "text/tokenizer.h"

#include <deque>
#include <iterator>

#include "base/error.h"
#include "text/tokenizer_state.h"
#include "text/tokenizer_writer.h"

namespace nibble {

namespace {

constexpr size_t kMaxText = size_t{1} << 30;  // offsets and symbol numbers are 32 bits wide

// The words of one text repeat: each slot remembers where in the output the tokens of a word were written.
struct WordCache {
  struct Slot {
    std::string_view word;
    size_t first = 0, count = 0;
  };
  static constexpr size_t kMaxWord = 32;  // longer words seldom repeat
  std::vector<Slot> slots{4096};
  Slot& slot_of(std::string_view word) { return slots[std::hash<std::string_view>{}(word) % slots.size()]; }
};

}  // namespace

// What one call of encode works with.
struct Tokenizer::State::Call {
  std::deque<std::string> storage;  // normalized text
  PreTokenizer::Scratch pre_tokenizer;
  Bpe::Scratch bpe;
  Unigram::Scratch unigram;
  WordCache cache;
  std::vector<int32_t> ids;
};

void Tokenizer::State::encode_word(std::string_view word, Call& call) const {
  auto& ids = call.ids;
  WordCache::Slot* slot = nullptr;
  if (word.size() <= WordCache::kMaxWord) {
    slot = &call.cache.slot_of(word);
    if (slot->word == word) {
      for (size_t i = 0; i < slot->count; i++) ids.push_back(ids[slot->first + i]);
      return;
    }
  }
  const size_t first = ids.size();
  const auto whole = spec.ignore_merges ? words.find(word) : words.end();
  if (whole != words.end()) {
    ids.push_back(whole->second);
  } else if (spec.model == TokenModel::unigram) {
    unigram.encode(word, call.unigram, ids);
  } else {
    bpe.encode(word, call.bpe, ids);
  }
  if (slot != nullptr) *slot = {word, first, ids.size() - first};
}

void Tokenizer::State::encode_text(std::string_view text, bool is_first, Call& call) const {
  pre_tokenizer.split(text, is_first, call.pre_tokenizer);
  for (const std::string_view piece : call.pre_tokenizer.pieces) {
    size_t begin = 0;
    for (size_t end; (end = cuts.next(piece, begin)) < piece.size(); begin = end)
      encode_word(piece.substr(begin, end - begin), call);
    encode_word(piece.substr(begin), call);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_json(const nlohmann::json& tokenizer, const nlohmann::json& config) {
  return Tokenizer(std::make_unique<State>(read_tokenizer_json(tokenizer, config)));
}

Tokenizer Tokenizer::from_gguf(const nlohmann::json& metadata) {
  return Tokenizer(std::make_unique<State>(read_tokenizer_gguf(metadata)));
}

Tokenizer Tokenizer::from_sentencepiece(std::string_view bytes, const nlohmann::json& config) {
  return Tokenizer(std::make_unique<State>(read_sentencepiece(bytes, config)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const State& state = *state_;
  if (text.size() > kMaxText) throw_input_error("text: {} bytes, at most {} expected", text.size(), kMaxText);
  State::Call call;
  call.pre_tokenizer = state.pre_tokenizer.make_scratch();
  const auto add = [&](const char* option, const char* place, std::span<const int32_t> expected,
                       std::optional<int32_t> role) {
    if (expected.empty() && !role)
      throw_input_error("{}: this tokenizer names no {}-of-text token; encode without it", option, place);
    if (expected.empty()) {
      call.ids.push_back(*role);
    } else {
      call.ids.insert(call.ids.end(), expected.begin(), expected.end());
    }
  };
  if (options.add_bos) add("add_bos", "beginning", state.spec.prefix, state.spec.bos);
  if (!state.spec.normalizer_takes_bytes && !is_utf8(text))
    text = call.storage.emplace_back(replace_invalid_utf8(text));
  std::vector<TextPart> parts, inner_parts;
  (options.parse_special ? state.raw : state.raw_without_special).split(text, parts);
  const AddedTokenMatcher& inner_matcher = options.parse_special ? state.normalized : state.normalized_without_special;
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      call.ids.push_back(part.id);
      continue;
    }
    inner_parts.clear();
    const std::string_view normalized = state.normalizer.apply(part.text, call.storage);
    inner_matcher.split(normalized, inner_parts);
    for (const TextPart& inner : inner_parts) {
      if (inner.id >= 0) {
        call.ids.push_back(inner.id);
      } else {
        state.encode_text(inner.text, part.text.data() == text.data() && inner.text.data() == normalized.data(), call);
      }
    }
  }
  if (options.add_eos) add("add_eos", "end", state.spec.suffix, state.spec.eos);
  return std::move(call.ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  DecodePosition position;
  for (const int32_t id : ids) append_decoded(id, position, bytes);
  return bytes;
}

void Tokenizer::append_decoded(int32_t id, DecodePosition& position, std::string& bytes) const {
  const State& state = *state_;
  std::string_view token = token_bytes(id);
  if (position.at_start && id >= 0 && id < vocab_size())
    token = std::string_view(state.pool).substr(state.tokens[id].first_offset, state.tokens[id].first_size);
  position.at_start = false;
  while (position.num_stripped >= 0 && !token.empty()) {
    if (token[0] == ' ' && position.num_stripped < state.spec.decoder.strip_start) {
      token.remove_prefix(1);
      position.num_stripped++;
    } else {
      position.num_stripped = -1;
    }
  }
  bytes += token;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? state_->bytes_of(id) : std::string_view();
}

bool Tokenizer::is_special(int32_t id) const { return id >= 0 && id < vocab_size() && state_->tokens[id].is_special; }

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->tokens.size()); }
std::optional<int32_t> Tokenizer::bos() const { return state_->spec.bos; }
std::optional<int32_t> Tokenizer::eos() const { return state_->spec.eos; }
bool Tokenizer::adds_bos() const { return !state_->spec.prefix.empty(); }
bool Tokenizer::adds_eos() const { return !state_->spec.suffix.empty(); }

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  for (const auto* map : {&state_->added, &state_->words}) {
    if (const auto known = map->find(token); known != map->end()) return known->second;
  }
  return std::nullopt;
}

nlohmann::json Tokenizer::to_tokenizer_json() const { return write_tokenizer_json(state_->spec); }
nlohmann::json Tokenizer::to_tokenizer_config() const { return write_tokenizer_config(state_->spec); }

}  // namespace nibble
