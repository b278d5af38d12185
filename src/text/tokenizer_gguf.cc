// Reads a tokenizer from the metadata of a GGUF file, which names its split patterns instead of giving them.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/piece_type.h"
#include "text/tokenizer_spec.h"

namespace nibble {

namespace {

using nlohmann::json;

const json kNull;

const json& gguf_value(const json& metadata, const std::string& key) {
  const auto it = metadata.find("tokenizer.ggml." + key);
  return it == metadata.end() ? kNull : *it;
}

std::string gguf_text(const json& metadata, const std::string& key) {
  const json& value = gguf_value(metadata, key);
  if (!value.is_string()) throw_input_error("tokenizer.ggml.{} is {}, a string expected", key, value.type_name());
  return value.get<std::string>();
}

const json& gguf_list(const json& metadata, const std::string& key) {
  const json& value = gguf_value(metadata, key);
  if (!value.is_array()) throw_input_error("tokenizer.ggml.{} is {}, a list expected", key, value.type_name());
  return value;
}

const std::string& text_of(const json& list, size_t i, const char* key) {
  if (!list[i].is_string())
    throw_input_error("tokenizer.ggml.{}: entry {} is {}, a string expected", key, i, list[i].type_name());
  return list[i].get_ref<const std::string&>();
}

std::optional<int32_t> gguf_id(const json& metadata, const std::string& key, size_t num_tokens) {
  const json& value = gguf_value(metadata, key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_number_integer() || value < 0 || value >= num_tokens) {
    throw_input_error("tokenizer.ggml.{} is {}, but the vocabulary has {} tokens", key, shown(value), num_tokens);
  }
  return value.get<int32_t>();
}

bool gguf_flag(const json& metadata, const std::string& key, bool fallback) {
  const json& value = gguf_value(metadata, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) throw_input_error("tokenizer.ggml.{} is {}, true or false expected", key, shown(value));
  return value.get<bool>();
}

// The scores, one for each token; empty if the file has none.
std::vector<double> read_scores(const json& metadata, size_t num_tokens) {
  std::vector<double> scores;
  const json& list = gguf_value(metadata, "scores");
  if (list.is_null()) return scores;
  if (!list.is_array() || list.size() != num_tokens) {
    throw_input_error("tokenizer.ggml.scores: {} entries, {} expected, one for each token", list.size(), num_tokens);
  }
  for (const json& score : list) {
    if (!score.is_number() || !std::isfinite(score.get<double>())) {
      throw_input_error("tokenizer.ggml.scores: token {} has {}, a number expected", scores.size(), shown(score));
    }
    scores.push_back(score.get<double>());
  }
  return scores;
}

size_t read_tokens(const json& metadata, TokenizerSpec& spec) {
  const json& tokens = gguf_list(metadata, "tokens");
  const json& types = gguf_value(metadata, "token_type");
  if (tokens.size() > TokenizerSpec::kMaxVocabulary) {
    throw_input_error("tokenizer.ggml.tokens: {} tokens, at most {} expected", tokens.size(),
                      TokenizerSpec::kMaxVocabulary);
  }
  if (!types.is_null() && (!types.is_array() || types.size() != tokens.size())) {
    throw_input_error("tokenizer.ggml.token_type: {} entries, {} expected, one for each token", types.size(),
                      tokens.size());
  }
  const std::vector<double> scores =
      spec.model == TokenModel::bpe ? std::vector<double>() : read_scores(metadata, tokens.size());
  const auto unknown = gguf_id(metadata, "unknown_token_id", tokens.size());
  for (size_t i = 0; i < tokens.size(); i++) {
    const std::string& text = text_of(tokens, i, "tokens");
    const auto id = static_cast<int32_t>(i);
    const json& type = types.is_null() ? json(kNormal) : types[i];
    if (!type.is_number_integer() || type < kNormal || type > kByte) {
      throw_input_error("tokenizer.ggml.token_type: token {} ('{}') has type {}, 1 to 6 expected", i, text,
                        shown(type));
    }
    if (type == kUnknown && (!spec.unknown_token || unknown == id) && !spec.byte_level) spec.unknown_token = text;
    if (type == kControl || type == kUnknown) {
      spec.added_tokens.push_back({.id = id, .content = text, .is_special = true});
    } else if (type == kUserDefined) {
      spec.added_tokens.push_back({.id = id, .content = text});
    } else {
      spec.vocabulary.emplace_back(text, id);
      if (spec.model == TokenModel::bpe) continue;
      const bool takes_part = type == kNormal;
      spec.scores.push_back(!takes_part ? TokenizerSpec::kTakesNoPart : scores.empty() ? 0 : scores[i]);
    }
  }
  return tokens.size();
}

void read_merges(const json& metadata, TokenizerSpec& spec) {
  const json& merges = gguf_list(metadata, "merges");
  spec.merges.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); rank++)
    spec.merges.push_back(split_merge(text_of(merges, rank, "merges"), rank));
}

// Byte-level BPE: the file names its split patterns.
size_t read_gpt2(const json& metadata, TokenizerSpec& spec) {
  const GgufPreTokenizer& pre = find_gguf_pre_tokenizer(gguf_text(metadata, "pre"));
  spec.byte_level = spec.decoder.byte_level = true;
  spec.ignore_merges = pre.ignore_merges;
  if (pre.nfc) spec.normalizer.push_back({.kind = NormalizerKind::nfc});
  for (const SplitStep& step : pre.steps) spec.pre_tokenizer.emplace_back(step);
  spec.pre_tokenizer.emplace_back(ByteLevelStep{});
  const size_t num_tokens = read_tokens(metadata, spec);
  read_merges(metadata, spec);
  return num_tokens;
}

// BPE on characters, with spaces written as kSpaceSymbol.
size_t read_gemma4(const json& metadata, TokenizerSpec& spec) {
  spec.byte_fallback = true;
  spec.normalizer.push_back(
      {.kind = NormalizerKind::replace, .text = " ", .content = std::string(kSpaceSymbol), .is_literal = true});
  spec.pre_tokenizer.emplace_back(SplitStep{"\\n+"});
  spec.decoder = sentencepiece_decoder({.add_prefix = false, .remove_extra = false});
  const size_t num_tokens = read_tokens(metadata, spec);
  read_merges(metadata, spec);
  return num_tokens;
}

std::string read_charsmap(const json& metadata) {
  std::string bytes;
  const json& list = gguf_value(metadata, "precompiled_charsmap");
  if (list.is_null()) return bytes;
  if (!list.is_array()) throw_input_error("tokenizer.ggml.precompiled_charsmap is {}, a list expected", shown(list));
  for (const json& byte : list) {
    if (!byte.is_number_integer() || byte < -128 || byte > 255)
      throw_input_error("tokenizer.ggml.precompiled_charsmap: {} is no byte", shown(byte));
    bytes += static_cast<char>(byte.get<int>());
  }
  return bytes;
}

// A vocabulary of SentencePiece: BPE by scores ("llama") or unigram ("t5").
size_t read_sentencepiece_vocabulary(const json& metadata, TokenModel model, TokenizerSpec& spec) {
  spec.model = model;
  spec.byte_fallback = true;
  spec.fuse_unknown = true;
  const bool is_unigram = model == TokenModel::unigram;
  const SpaceRules spaces{.add_prefix = gguf_flag(metadata, "add_space_prefix", true),
                          .remove_extra = is_unigram && gguf_flag(metadata, "remove_extra_whitespaces", false)};
  spec.normalizer.push_back({.kind = NormalizerKind::sentencepiece,
                             .text = is_unigram ? read_charsmap(metadata) : std::string(),
                             .spaces = spaces});
  spec.decoder = sentencepiece_decoder(spaces);
  return read_tokens(metadata, spec);
}

// Phi-3's control tokens take the white space after them; the file itself does not say so.
void apply_model_name(const json& metadata, TokenizerSpec& spec) {
  const auto it = metadata.find("general.name");
  if (it == metadata.end() || !it->is_string()) return;
  std::string name = it->get<std::string>();
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return;
  for (AddedToken& token : spec.added_tokens)
    token.strip_right = token.content != "<unk>" && token.content != "<s>" && token.content != "<|endoftext|>";
}

}  // namespace

TokenizerSpec read_tokenizer_gguf(const json& metadata) {
  if (!metadata.is_object()) throw_input_error("GGUF metadata is {}, an object expected", metadata.type_name());
  const std::string model = gguf_text(metadata, "model");
  TokenizerSpec spec;
  size_t num_tokens = 0;
  bool adds_bos = false, adds_eos = false;
  if (model == "gpt2") {
    num_tokens = read_gpt2(metadata, spec);
    adds_bos = find_gguf_pre_tokenizer(gguf_text(metadata, "pre")).adds_bos;
  } else if (model == "llama") {
    num_tokens = read_sentencepiece_vocabulary(metadata, TokenModel::scored_bpe, spec);
    adds_bos = true;
  } else if (model == "t5") {
    num_tokens = read_sentencepiece_vocabulary(metadata, TokenModel::unigram, spec);
    adds_eos = true;
  } else if (model == "gemma4") {
    num_tokens = read_gemma4(metadata, spec);
  } else {
    throw_input_error(
        "tokenizer.ggml.model: '{}' is not supported; gpt2 (byte-level BPE), llama (SentencePiece BPE), t5 (unigram) "
        "and gemma4 are",
        model);
  }
  apply_model_name(metadata, spec);
  spec.bos = gguf_id(metadata, "bos_token_id", num_tokens);
  spec.eos = gguf_id(metadata, "eos_token_id", num_tokens);
  if (gguf_flag(metadata, "add_bos_token", adds_bos) && spec.bos) spec.prefix = {*spec.bos};
  if (gguf_flag(metadata, "add_eos_token", adds_eos) && spec.eos) spec.suffix = {*spec.eos};
  return spec;
}

}  // namespace nibble
