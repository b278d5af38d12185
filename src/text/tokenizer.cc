#include "text/tokenizer.h"

#include <algorithm>
#include <deque>
#include <unordered_map>

#include <utf8proc.h>

#include "base/error.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/tokenizer_spec.h"
#include "text/tokenizer_writer.h"
#include "text/utf8.h"

namespace nibble {

namespace {

constexpr size_t kMaxText = size_t{1} << 30;  // offsets and symbol numbers are 32 bits wide

// The composed form of `text`. Below U+0300 everything is composed already, and text in Latin letters is common.
std::string_view normalize_nfc(std::string_view text, std::deque<std::string>& storage) {
  const auto may_compose = [](char c) { return static_cast<uint8_t>(c) >= 0xCC; };  // U+0300 begins with CC
  if (std::none_of(text.begin(), text.end(), may_compose)) return text;
  utf8proc_uint8_t* composed = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &composed, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) throw_input_error("text of {} bytes: normalization: {}", text.size(), utf8proc_errmsg(size));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  return storage.emplace_back(reinterpret_cast<const char*>(composed), size);
}

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

struct Tokenizer::State {
  TokenizerSpec spec;  // kept for the writer
  std::string pool;    // the bytes of all tokens
  struct Token {
    size_t offset = 0, size = 0;
    bool exists = false, is_special = false;
  };
  std::vector<Token> tokens;                                   // by id
  std::unordered_map<std::string_view, int32_t> words, added;  // by bytes; views into `pool`
  AddedTokenMatcher raw, raw_without_special, normalized, normalized_without_special;
  PreTokenizer pre_tokenizer;
  Bpe bpe;

  std::string_view bytes_of(int32_t id) const {
    return std::string_view(pool).substr(tokens[id].offset, tokens[id].size);
  }
  void set_token(int32_t id, std::string_view bytes, bool is_special);
  void read_vocabulary();
  void read_merges();
  void read_added_tokens();
  explicit State(TokenizerSpec new_spec);

  struct Call;
  void encode_text(std::string_view text, Call& call) const;
  void encode_word(std::string_view word, Call& call) const;
};

// What one call of encode works with.
struct Tokenizer::State::Call {
  std::deque<std::string> storage;  // normalized text
  PreTokenizer::Scratch pre_tokenizer;
  Bpe::Scratch bpe;
  WordCache cache;
  std::vector<int32_t> ids;
};

void Tokenizer::State::set_token(int32_t id, std::string_view bytes, bool is_special) {
  if (id >= static_cast<int32_t>(tokens.size())) tokens.resize(id + 1);
  tokens[id] = {pool.size(), bytes.size(), true, is_special};
  pool += bytes;
}

void Tokenizer::State::read_vocabulary() {
  std::vector<bool> is_word;
  for (const auto& [text, id] : spec.vocabulary) {
    if (id < 0 || id >= TokenizerSpec::kMaxVocabulary) {
      throw_input_error("vocabulary: token '{}' has id {}, 0 to {} expected", text, id,
                        TokenizerSpec::kMaxVocabulary - 1);
    }
    if (id < static_cast<int32_t>(tokens.size()) && tokens[id].exists) {
      throw_input_error("vocabulary: id {} belongs to '{}' and to '{}'; each token needs an id of its own", id,
                        bytes_of(id), text);
    }
    const auto bytes = bytes_of_byte_level(text);
    set_token(id, bytes.value_or(text), false);
    is_word.resize(tokens.size());
    is_word[id] = bytes.has_value();
  }
  for (const AddedToken& token : spec.added_tokens) {
    if (token.id < 0 || token.id >= TokenizerSpec::kMaxVocabulary) {
      throw_input_error("added token '{}' has id {}, 0 to {} expected", token.content, token.id,
                        TokenizerSpec::kMaxVocabulary - 1);
    }
    const auto id = static_cast<size_t>(token.id);
    if (id < is_word.size() && is_word[id] && bytes_of(token.id) != token.content) is_word[id] = false;
    set_token(token.id, token.content, token.is_special);
  }
  // From here on the pool does not grow: views into it stay valid.
  words.reserve(spec.vocabulary.size());
  for (size_t id = 0; id < is_word.size(); id++) {
    if (is_word[id]) words.emplace(bytes_of(static_cast<int32_t>(id)), static_cast<int32_t>(id));
  }
}

void Tokenizer::State::read_merges() {
  std::unordered_map<std::string_view, int32_t> ids;  // by the text of the vocabulary, which merges are written in
  ids.reserve(spec.vocabulary.size());
  for (const auto& [text, id] : spec.vocabulary) {
    const auto [known, is_new] = ids.emplace(text, id);
    if (!is_new) {
      throw_input_error("vocabulary: token '{}' has id {} and id {}; each token may occur once", text, known->second,
                        id);
    }
  }
  for (const AddedToken& token : spec.added_tokens) ids.emplace(token.content, token.id);
  const auto id_of = [&](const std::string& text, size_t rank) {
    const auto known = ids.find(text);
    if (known == ids.end()) {
      throw_input_error(
          "merge {} ('{}' '{}'): '{}' is not in the vocabulary of {} tokens; the vocabulary and the merges "
          "do not belong together",
          rank, spec.merges[rank].first, spec.merges[rank].second, text, spec.vocabulary.size());
    }
    return known->second;
  };
  std::vector<BpeMerge> merges;
  merges.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); rank++) {
    const auto& [left, right] = spec.merges[rank];
    merges.push_back({id_of(left, rank), id_of(right, rank), id_of(left + right, rank)});
  }
  BpeBytes bytes;
  bytes.fuse_unknown = spec.fuse_unknown;
  for (int byte = 0; byte < 256; byte++) {
    const char c = static_cast<char>(byte);
    const auto known = ids.find(byte_level_of_bytes({&c, 1}));
    bytes.ids[byte] = known == ids.end() ? -1 : known->second;
  }
  if (spec.unknown_token) {
    const auto known = ids.find(*spec.unknown_token);
    if (known == ids.end()) throw_input_error("unk_token '{}' is not in the vocabulary", *spec.unknown_token);
    bytes.unknown = known->second;
  }
  bpe = Bpe(merges, bytes);
}

void Tokenizer::State::read_added_tokens() {
  std::deque<std::string> storage;
  for (const AddedToken& token : spec.added_tokens) {
    added.emplace(bytes_of(token.id), token.id);
    const bool composes = token.is_normalized && spec.nfc;
    const std::string_view content = composes ? normalize_nfc(token.content, storage) : token.content;
    (token.is_normalized ? normalized : raw).add(content, token);
    if (!token.is_special) (token.is_normalized ? normalized_without_special : raw_without_special).add(content, token);
  }
}

Tokenizer::State::State(TokenizerSpec new_spec) : spec(std::move(new_spec)), pre_tokenizer(spec.pre_tokenizer) {
  read_vocabulary();
  read_merges();
  read_added_tokens();
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
  } else {
    bpe.encode(word, call.bpe, ids);
  }
  if (slot != nullptr) *slot = {word, first, ids.size() - first};
}

void Tokenizer::State::encode_text(std::string_view text, Call& call) const {
  pre_tokenizer.split(text, call.pre_tokenizer);
  for (const std::string_view word : call.pre_tokenizer.pieces) encode_word(word, call);
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

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const State& state = *state_;
  if (text.size() > kMaxText) throw_input_error("text: {} bytes, at most {} expected", text.size(), kMaxText);
  State::Call call;
  call.pre_tokenizer = state.pre_tokenizer.make_scratch();
  if (options.add_bos) {
    if (!bos()) throw_input_error("add_bos: this tokenizer names no beginning-of-text token; encode without it");
    call.ids.push_back(*bos());
  }
  if (!is_utf8(text)) text = call.storage.emplace_back(replace_invalid_utf8(text));
  std::vector<TextPart> parts, inner_parts;
  (options.parse_special ? state.raw : state.raw_without_special).split(text, parts);
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      call.ids.push_back(part.id);
      continue;
    }
    const std::string_view normalized = state.spec.nfc ? normalize_nfc(part.text, call.storage) : part.text;
    inner_parts.clear();
    (options.parse_special ? state.normalized : state.normalized_without_special).split(normalized, inner_parts);
    for (const TextPart& inner : inner_parts) {
      if (inner.id >= 0) {
        call.ids.push_back(inner.id);
      } else {
        state.encode_text(inner.text, call);
      }
    }
  }
  return std::move(call.ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += token_bytes(id);
  return bytes;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? state_->bytes_of(id) : std::string_view();
}

bool Tokenizer::is_special(int32_t id) const { return id >= 0 && id < vocab_size() && state_->tokens[id].is_special; }

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->tokens.size()); }
std::optional<int32_t> Tokenizer::bos() const { return state_->spec.bos; }
std::optional<int32_t> Tokenizer::eos() const { return state_->spec.eos; }
bool Tokenizer::adds_bos() const { return state_->spec.adds_bos; }

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  for (const auto* map : {&state_->added, &state_->words}) {
    if (const auto known = map->find(token); known != map->end()) return known->second;
  }
  return std::nullopt;
}

nlohmann::json Tokenizer::to_tokenizer_json() const { return write_tokenizer_json(state_->spec); }
nlohmann::json Tokenizer::to_tokenizer_config() const { return write_tokenizer_config(state_->spec); }

}  // namespace nibble
