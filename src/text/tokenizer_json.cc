// Reads tokenizer.json, the format of the Hugging Face tokenizers library: the model and the added tokens.
#include <cmath>
#include <map>

#include "base/error.h"
#include "text/json_members.h"
#include "text/tokenizer_spec.h"

namespace nibble {

namespace {

using nlohmann::json;

void read_bpe(const json& model, TokenizerSpec& spec) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& value = member(model, key);
    if (!value.is_null() && value != json("")) {
      throw_input_error("model: {} is {}; no model read here has one", key, shown(value));
    }
  }
  const json& dropout = member(model, "dropout");
  if (!dropout.is_null() && dropout != 0.0) {
    throw_input_error("model: dropout is {}; encoding must not be random, null expected", shown(dropout));
  }
  if (!member(model, "unk_token").is_null()) spec.unknown_token = text_member(model, "unk_token", "model");
  spec.fuse_unknown = flag_member(model, "fuse_unk", "model");
  spec.ignore_merges = flag_member(model, "ignore_merges", "model");

  const json& vocabulary = member(model, "vocab");
  if (!vocabulary.is_object()) throw_input_error("model: vocab is {}, an object expected", vocabulary.type_name());
  spec.vocabulary.reserve(vocabulary.size());
  for (const auto& [text, id] : vocabulary.items()) spec.vocabulary.emplace_back(text, id_value(id, "model: vocab"));

  const json& merges = member(model, "merges");
  if (!merges.is_array()) throw_input_error("model: merges is {}, a list expected", merges.type_name());
  spec.merges.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.is_string()) {
      spec.merges.push_back(split_merge(merge.get_ref<const std::string&>(), spec.merges.size()));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      throw_input_error("merge {}: {}, a pair of tokens expected", spec.merges.size(), shown(merge));
    }
  }
}

void read_unigram(const json& model, TokenizerSpec& spec) {
  spec.model = TokenModel::unigram;
  spec.fuse_unknown = flag_member(model, "fuse_unk", "model", true);
  const json& vocabulary = member(model, "vocab");
  if (!vocabulary.is_array() || vocabulary.size() > TokenizerSpec::kMaxVocabulary) {
    throw_input_error("model: vocab is {} of {} entries, a list of at most {} expected", vocabulary.type_name(),
                      vocabulary.size(), TokenizerSpec::kMaxVocabulary);
  }
  for (const json& entry : vocabulary) {
    const size_t id = spec.vocabulary.size();
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number() ||
        !std::isfinite(entry[1].get<double>())) {
      throw_input_error("model: vocab: entry {} is {}, a token and its score expected", id, shown(entry));
    }
    spec.vocabulary.emplace_back(entry[0].get<std::string>(), static_cast<int32_t>(id));
    spec.scores.push_back(entry[1].get<double>());
  }
  const json& unknown = member(model, "unk_id");
  if (unknown.is_null()) return;
  const auto id = static_cast<size_t>(id_value(unknown, "model: unk_id"));
  if (id >= spec.vocabulary.size()) {
    throw_input_error("model: unk_id is {}, but the vocabulary has {} tokens", id, spec.vocabulary.size());
  }
  spec.unknown_token = spec.vocabulary[id].first;
}

void read_model(const json& model, TokenizerSpec& spec) {
  const json& type = member(model, "type");
  const bool is_unigram = type == "Unigram" || (type.is_null() && member(model, "vocab").is_array());
  if (!is_unigram && !type.is_null() && type != "BPE") {
    throw_input_error("model: type is {}, \"BPE\" or \"Unigram\" expected", shown(type));
  }
  if (is_unigram) {
    read_unigram(model, spec);
  } else {
    read_bpe(model, spec);
  }
  spec.byte_fallback = flag_member(model, "byte_fallback", "model");
}

void read_added_tokens(const json& list, TokenizerSpec& spec) {
  if (list.is_null()) return;
  if (!list.is_array()) throw_input_error("added_tokens is {}, a list expected", list.type_name());
  std::map<int32_t, std::string> contents;
  for (const json& node : list) {
    AddedToken token{id_value(member(node, "id"), "added_tokens"), text_member(node, "content", "added_tokens")};
    token.is_special = flag_member(node, "special", "added_tokens");
    token.is_normalized = flag_member(node, "normalized", "added_tokens", !token.is_special);
    token.strip_left = flag_member(node, "lstrip", "added_tokens");
    token.strip_right = flag_member(node, "rstrip", "added_tokens");
    token.single_word = flag_member(node, "single_word", "added_tokens");
    const auto [known, is_new] = contents.emplace(token.id, token.content);
    if (!is_new) {
      throw_input_error("added_tokens: id {} belongs to '{}' and to '{}'; each token needs an id of its own", token.id,
                        known->second, token.content);
    }
    spec.added_tokens.push_back(std::move(token));
  }
}

// A token named by its content or by an object that has it, as in tokenizer_config.json.
std::optional<int32_t> read_named_token(const json& config, const char* key, const TokenizerSpec& spec) {
  const json& value = member(config, key);
  if (value.is_null()) return std::nullopt;
  const std::string content =
      value.is_object() ? text_member(value, "content", key) : text_member(config, key, "config");
  for (const AddedToken& token : spec.added_tokens)
    if (token.content == content) return token.id;
  for (const auto& [text, id] : spec.vocabulary)
    if (text == content) return id;
  throw_input_error("config: {} is '{}', which the tokenizer does not have", key, content);
}

}  // namespace

std::string shown(const json& value) {
  constexpr size_t kMaxShown = 100;
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "…";
  return text;
}

std::pair<std::string, std::string> split_merge(std::string_view merge, size_t rank) {
  const size_t space = merge.find(' ', 1);  // from 1 on: a token is not empty
  if (space == std::string_view::npos || space + 1 == merge.size() ||
      merge.find(' ', space + 1) != std::string_view::npos) {
    throw_input_error("merge {}: '{}', two tokens with one space between them expected", rank, merge);
  }
  return {std::string(merge.substr(0, space)), std::string(merge.substr(space + 1))};
}

void read_roles(const json& config, TokenizerSpec& spec) {
  if (const auto bos = read_named_token(config, "bos_token", spec)) spec.bos = bos;
  if (const auto eos = read_named_token(config, "eos_token", spec)) spec.eos = eos;
  const auto apply = [&](const char* key, const std::optional<int32_t>& role, std::vector<int32_t>& tokens) {
    if (!flag_member(config, key, "config", !tokens.empty())) {
      tokens.clear();
    } else if (tokens.empty() && role) {
      tokens.push_back(*role);
    }
  };
  apply("add_bos_token", spec.bos, spec.prefix);
  apply("add_eos_token", spec.eos, spec.suffix);
}

TokenizerSpec read_tokenizer_json(const json& tokenizer, const json& config) {
  if (!tokenizer.is_object()) throw_input_error("tokenizer.json is {}, an object expected", tokenizer.type_name());
  TokenizerSpec spec;
  read_model(member(tokenizer, "model"), spec);
  read_added_tokens(member(tokenizer, "added_tokens"), spec);
  read_pipeline(tokenizer, spec);
  read_roles(config, spec);
  if (!spec.prefix.empty()) spec.bos = spec.prefix[0];
  return spec;
}

}  // namespace nibble
