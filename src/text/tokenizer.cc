#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <deque>
#include <iterator>
#include <limits>
#include <unordered_map>

#include "base/error.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/score_merges.h"
#include "text/tokenizer_spec.h"
#include "text/tokenizer_writer.h"
#include "text/unigram.h"
#include "text/utf8.h"

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

// Where a text may be cut before a space symbol without changing what becomes of it: where no token has that symbol
// after the byte before. Words are short then, and they repeat.
class SpaceCuts {
 public:
  SpaceCuts() = default;  // cuts nowhere
  explicit SpaceCuts(std::span<const std::pair<std::string, int32_t>> vocabulary) : cuts_(true) {
    for (const auto& [text, id] : vocabulary)
      for (size_t at = 0; (at = text.find(kSpaceSymbol, at + 1)) != std::string::npos;)
        joins_[static_cast<uint8_t>(text[at - 1])] = true;
  }

  // The first cut after `begin`, or the end of the text.
  size_t next(std::string_view text, size_t begin) const {
    if (!cuts_) return text.size();
    for (size_t at = begin; (at = text.find(kSpaceSymbol, at + 1)) != std::string_view::npos;)
      if (!joins_[static_cast<uint8_t>(text[at - 1])]) return at;
    return text.size();
  }

 private:
  bool cuts_ = false;
  bool joins_[256] = {};
};

// The tokens <0x00> to <0xFF>, -1 where there is none.
std::array<int32_t, 256> byte_tokens(const std::unordered_map<std::string_view, int32_t>& texts) {
  std::array<int32_t, 256> ids;
  for (int byte = 0; byte < 256; byte++) {
    const auto known = texts.find(fmt::format("<0x{:02X}>", byte));
    ids[byte] = known == texts.end() ? -1 : known->second;
  }
  return ids;
}

// What a token adds to a text.
std::string decoded_token(std::string_view text, const DecoderSpec& decoder) {
  if (decoder.byte_level) return bytes_of_byte_level(text).value_or(std::string(text));
  if (decoder.byte_fallback)
    if (const auto byte = byte_of_token(text)) return {static_cast<char>(*byte)};
  std::string decoded(text);
  for (const auto& [from, to] : decoder.replacements) decoded = replace_all(decoded, from, to, 16 * text.size() + 256);
  return decoded;
}

}  // namespace

struct Tokenizer::State {
  TokenizerSpec spec;  // kept for the writer
  std::string pool;    // the bytes of all tokens
  struct Token {
    size_t offset = 0, size = 0;
    bool exists = false, is_special = false;
    size_t first_offset = 0, first_size = 0;  // the bytes at the beginning of a text
  };
  std::vector<Token> tokens;                            // by id
  std::unordered_map<std::string_view, int32_t> texts;  // by the text that files have; views into `spec`
  std::unordered_map<std::string_view, int32_t> words;  // by what a word is when it is looked up: bytes, or the text
  std::unordered_map<std::string_view, int32_t> added;  // by content
  AddedTokenMatcher raw, raw_without_special, normalized, normalized_without_special;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  Unigram unigram;
  SpaceCuts cuts;

  std::string_view bytes_of(int32_t id) const {
    return std::string_view(pool).substr(tokens[id].offset, tokens[id].size);
  }
  void set_token(int32_t id, std::string_view text, bool is_added, bool is_special);
  void check_id(std::string_view text, int32_t id) const;
  void read_vocabulary();
  int32_t id_of_merged(const std::string& text, size_t rank) const;
  std::vector<BpeMerge> read_merges() const;
  std::optional<int32_t> find_unknown() const;
  void make_bpe();
  void make_unigram();
  // What stands in the text for an added token: its content, normalized if the text is by then.
  std::string_view matched_content(const AddedToken& token, std::deque<std::string>& storage) const;
  void read_added_tokens();
  explicit State(TokenizerSpec new_spec);

  struct Call;
  void encode_text(std::string_view text, bool is_first, Call& call) const;
  void encode_word(std::string_view word, Call& call) const;
};

// What one call of encode works with.
struct Tokenizer::State::Call {
  std::deque<std::string> storage;  // normalized text
  PreTokenizer::Scratch pre_tokenizer;
  Bpe::Scratch bpe;
  Unigram::Scratch unigram;
  WordCache cache;
  std::vector<int32_t> ids;
};

void Tokenizer::State::set_token(int32_t id, std::string_view text, bool is_added, bool is_special) {
  const DecoderSpec& decoder = spec.decoder;
  const bool is_plain = decoder.byte_level && is_added;  // not in the byte-level alphabet
  const std::string bytes = is_plain ? std::string(text) : decoded_token(text, decoder);
  if (id >= static_cast<int32_t>(tokens.size())) tokens.resize(id + 1);
  Token& token = tokens[id];
  token = {pool.size(), bytes.size(), true, is_special, pool.size(), bytes.size()};
  pool += bytes;
  if (decoder.lost_in_first.empty() || is_plain) return;
  const std::string first = decoded_token(replace_all(text, decoder.lost_in_first, "", text.size()), decoder);
  token.first_offset = pool.size();
  token.first_size = first.size();
  pool += first;
}

void Tokenizer::State::check_id(std::string_view text, int32_t id) const {
  const size_t num_tokens = spec.vocabulary.size() + spec.added_tokens.size();
  const auto end = std::min<size_t>(TokenizerSpec::kMaxVocabulary, 65536 + 4 * num_tokens);  // room for holes
  if (id < 0 || static_cast<size_t>(id) >= end) {
    throw_input_error("vocabulary: token '{}' has id {}, 0 to {} expected among {} tokens", text, id, end - 1,
                      num_tokens);
  }
}

void Tokenizer::State::read_vocabulary() {
  texts.reserve(spec.vocabulary.size());
  for (const auto& [text, id] : spec.vocabulary) {
    check_id(text, id);
    if (id < static_cast<int32_t>(tokens.size()) && tokens[id].exists) {
      throw_input_error("vocabulary: id {} belongs to '{}' and to '{}'; each token needs an id of its own", id,
                        bytes_of(id), text);
    }
    set_token(id, text, false, false);
    const auto [known, is_new] = texts.emplace(text, id);
    if (!is_new && !text.empty()) {
      throw_input_error("vocabulary: token '{}' has id {} and id {}; each token may occur once", text, known->second,
                        id);
    }
  }
  std::deque<std::string> storage;
  for (const AddedToken& token : spec.added_tokens) {
    check_id(token.content, token.id);
    added.emplace(token.content, token.id);
    set_token(token.id, matched_content(token, storage), true, token.is_special);
  }
  if (!spec.byte_level) return;
  words.reserve(spec.vocabulary.size());  // from here on the pool does not grow: views into it stay valid
  for (const auto& [text, id] : spec.vocabulary)
    if (const auto bytes = bytes_of_byte_level(text); bytes && *bytes == bytes_of(id)) words.emplace(bytes_of(id), id);
}

int32_t Tokenizer::State::id_of_merged(const std::string& text, size_t rank) const {
  if (const auto known = texts.find(text); known != texts.end()) return known->second;
  if (const auto known = added.find(text); known != added.end()) return known->second;
  throw_input_error(
      "merge {} ('{}' '{}'): '{}' is not in the vocabulary of {} tokens; the vocabulary and the merges "
      "do not belong together",
      rank, spec.merges[rank].first, spec.merges[rank].second, text, spec.vocabulary.size());
}

std::vector<BpeMerge> Tokenizer::State::read_merges() const {
  std::vector<BpeMerge> merges;
  if (spec.model == TokenModel::scored_bpe) {
    std::vector<ScoredToken> scored;
    for (size_t i = 0; i < spec.vocabulary.size(); i++) {
      if (spec.scores[i] == TokenizerSpec::kTakesNoPart) continue;
      scored.push_back({spec.vocabulary[i].first, spec.vocabulary[i].second, spec.scores[i]});
    }
    return merges_of_scores(scored);
  }
  merges.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); rank++) {
    const auto& [left, right] = spec.merges[rank];
    merges.push_back({id_of_merged(left, rank), id_of_merged(right, rank), id_of_merged(left + right, rank),
                      static_cast<int32_t>(rank)});
  }
  return merges;
}

std::optional<int32_t> Tokenizer::State::find_unknown() const {
  if (!spec.unknown_token) return std::nullopt;
  for (const auto* map : {&texts, &added})
    if (const auto known = map->find(*spec.unknown_token); known != map->end()) return known->second;
  throw_input_error("unk_token '{}' is not in the vocabulary", *spec.unknown_token);
}

void Tokenizer::State::make_bpe() {
  BpeSymbols symbols;
  symbols.of_bytes = spec.byte_level;
  symbols.unknown = find_unknown().value_or(-1);
  symbols.fuse_unknown = spec.fuse_unknown;
  symbols.late_unknown = spec.model == TokenModel::scored_bpe;
  symbols.has_fallback = spec.byte_fallback;
  for (int byte = 0; byte < 256; byte++) {
    const char c = static_cast<char>(byte);
    const auto known = texts.find(byte_level_of_bytes({&c, 1}));
    symbols.bytes[byte] = known == texts.end() ? -1 : known->second;
  }
  symbols.fallback = byte_tokens(texts);
  for (size_t i = 0; i < spec.vocabulary.size(); i++) {
    const auto& [text, id] = spec.vocabulary[i];
    if (text.empty() || (!spec.scores.empty() && spec.scores[i] == TokenizerSpec::kTakesNoPart)) continue;
    const Utf8Step step = read_utf8(text, 0);
    if (step.state == Utf8State::valid && step.num_bytes == text.size())
      symbols.characters.emplace_back(step.code_point, id);
  }
  const bool has_space = std::any_of(symbols.characters.begin(), symbols.characters.end(),
                                     [](const auto& character) { return character.first == U'\u2581'; });
  if (!spec.byte_level && !spec.ignore_merges && has_space) cuts = SpaceCuts(spec.vocabulary);
  bpe = Bpe(read_merges(), symbols);
}

void Tokenizer::State::make_unigram() {
  UnigramOptions options;
  options.unknown = find_unknown().value_or(-1);
  options.fuse_unknown = spec.fuse_unknown;
  options.single_precision = spec.single_precision;
  const auto fallback = byte_tokens(texts);
  const bool is_whole = std::all_of(fallback.begin(), fallback.end(), [](int32_t id) { return id >= 0; });
  if (spec.byte_fallback && is_whole) options.fallback.assign(fallback.begin(), fallback.end());
  std::vector<UnigramToken> list;
  options.lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < spec.vocabulary.size(); i++) {
    if (spec.scores[i] == TokenizerSpec::kTakesNoPart) continue;
    list.push_back({spec.vocabulary[i].first, spec.vocabulary[i].second, spec.scores[i]});
    options.lowest = std::min(options.lowest, spec.scores[i]);
  }
  unigram = Unigram(list, options);
}

std::string_view Tokenizer::State::matched_content(const AddedToken& token, std::deque<std::string>& storage) const {
  return token.is_normalized && !token.is_verbatim ? normalizer.apply(token.content, storage) : token.content;
}

void Tokenizer::State::read_added_tokens() {
  std::deque<std::string> storage;
  for (const AddedToken& token : spec.added_tokens) {
    const std::string_view content = matched_content(token, storage);
    (token.is_normalized ? normalized : raw).add(content, token);
    if (!token.is_special) (token.is_normalized ? normalized_without_special : raw_without_special).add(content, token);
  }
}

Tokenizer::State::State(TokenizerSpec new_spec)
    : spec(std::move(new_spec)), normalizer(spec.normalizer), pre_tokenizer(spec.pre_tokenizer) {
  read_vocabulary();
  if (spec.model == TokenModel::unigram) {
    make_unigram();
  } else {
    make_bpe();
  }
  read_added_tokens();
  if (!spec.byte_level) words.swap(texts);
  texts.clear();
  for (const auto& [name, id] : {std::pair("bos", spec.bos), std::pair("eos", spec.eos)}) {
    if (id && (*id < 0 || *id >= static_cast<int32_t>(tokens.size()))) {
      throw_input_error("{} token: id {}, but the vocabulary has {} tokens", name, *id, tokens.size());
    }
  }
}

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
