#include "text/tokenizer_state.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/score_merges.h"

namespace nibble {

namespace {

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

}  // namespace nibble
