// Reads tokenizer.json, the format of the Hugging Face tokenizers library, as far as byte-level BPE uses it.
#include <map>

#include "base/error.h"
#include "text/tokenizer_spec.h"

namespace nibble {

namespace {

using nlohmann::json;

constexpr int kMaxNesting = 16;  // of Sequence in Sequence

const json kNull;

const json& member(const json& object, const char* key) {
  if (!object.is_object()) return kNull;
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

std::string text_member(const json& object, const char* key, std::string_view where) {
  const json& value = member(object, key);
  if (!value.is_string()) throw_input_error("{}: {} is {}, a string expected", where, key, value.type_name());
  return value.get<std::string>();
}

bool flag_member(const json& object, const char* key, std::string_view where, bool fallback = false) {
  const json& value = member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) throw_input_error("{}: {} is {}, true or false expected", where, key, value.type_name());
  return value.get<bool>();
}

int32_t id_value(const json& value, std::string_view where) {
  if (!value.is_number_integer() || value < 0 || value >= TokenizerSpec::kMaxVocabulary) {
    throw_input_error("{}: id is {}, 0 to {} expected", where, shown(value), TokenizerSpec::kMaxVocabulary - 1);
  }
  return value.get<int32_t>();
}

SplitBehavior read_behavior(const std::string& name) {
  static const std::map<std::string, SplitBehavior> behaviors = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous},
  };
  const auto known = behaviors.find(name);
  if (known == behaviors.end()) throw_input_error("pre_tokenizer: Split: unknown behavior '{}'", name);
  return known->second;
}

// Appends the steps of one pre-tokenizer. `has_bytes` is set by ByteLevel, after which nothing can follow: the text
// would be in the byte-level alphabet there, and the steps here work on the text itself.
void read_pre_tokenizer(const json& node, PreTokenizerSpec& spec, bool& has_bytes, int nesting) {
  if (nesting > kMaxNesting) throw_input_error("pre_tokenizer: nested more than {} deep", kMaxNesting);
  const std::string type = text_member(node, "type", "pre_tokenizer");
  if (type == "Sequence") {
    const json& list = member(node, "pretokenizers");
    if (!list.is_array()) throw_input_error("pre_tokenizer: Sequence without its list pretokenizers");
    for (const json& inner : list) read_pre_tokenizer(inner, spec, has_bytes, nesting + 1);
    return;
  }
  if (has_bytes)
    throw_input_error("pre_tokenizer: {} after ByteLevel is not supported; ByteLevel must be the last", type);
  if (type == "ByteLevel") {
    spec.add_prefix_space = flag_member(node, "add_prefix_space", "pre_tokenizer: ByteLevel", true);
    spec.prefix_step = spec.steps.size();
    if (flag_member(node, "use_regex", "pre_tokenizer: ByteLevel", true)) spec.steps.push_back({kGpt2Pattern});
    has_bytes = true;
  } else if (type == "Digits") {
    const bool individual = flag_member(node, "individual_digits", "pre_tokenizer: Digits");
    spec.steps.push_back({"\\p{N}", individual ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Split") {
    const json& pattern = member(node, "pattern");
    SplitStep step;
    step.pattern = pattern.contains("String") ? quote_regex(text_member(pattern, "String", "pre_tokenizer: Split"))
                                              : text_member(pattern, "Regex", "pre_tokenizer: Split: pattern");
    step.behavior = read_behavior(text_member(node, "behavior", "pre_tokenizer: Split"));
    step.invert = flag_member(node, "invert", "pre_tokenizer: Split");
    spec.steps.push_back(std::move(step));
  } else {
    throw_input_error("pre_tokenizer: type '{}' is not supported; Sequence, Split, Digits and ByteLevel are", type);
  }
}

bool read_normalizer(const json& node, int nesting) {
  if (node.is_null()) return false;
  if (nesting > kMaxNesting) throw_input_error("normalizer: nested more than {} deep", kMaxNesting);
  const std::string type = text_member(node, "type", "normalizer");
  if (type == "NFC") return true;
  if (type != "Sequence") throw_input_error("normalizer: type '{}' is not supported; NFC is", type);
  const json& list = member(node, "normalizers");
  if (!list.is_array()) throw_input_error("normalizer: Sequence without its list normalizers");
  bool nfc = false;
  for (const json& inner : list) nfc |= read_normalizer(inner, nesting + 1);
  return nfc;
}

void check_decoder(const json& node) {
  if (node.is_null()) return;
  const std::string type = text_member(node, "type", "decoder");
  if (type != "ByteLevel") throw_input_error("decoder: type '{}' is not supported; ByteLevel is", type);
}

void read_model(const json& model, TokenizerSpec& spec) {
  const json& type = member(model, "type");
  if (!type.is_null() && type != "BPE") throw_input_error("model: type is {}, \"BPE\" expected", shown(type));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& value = member(model, key);
    if (!value.is_null() && value != json("")) {
      throw_input_error("model: {} is {}; byte-level BPE has none", key, shown(value));
    }
  }
  const json& dropout = member(model, "dropout");
  if (!dropout.is_null() && dropout != 0.0) {
    throw_input_error("model: dropout is {}; encoding must not be random, null expected", shown(dropout));
  }
  if (flag_member(model, "byte_fallback", "model")) {
    throw_input_error("model: byte_fallback is true; byte-level BPE has a token for every byte");
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

// The token with which a template begins every text, if there is one. Sets `bos`.
bool read_post_processor(const json& node, std::optional<int32_t>& bos, int nesting) {
  if (node.is_null()) return false;
  if (nesting > kMaxNesting) throw_input_error("post_processor: nested more than {} deep", kMaxNesting);
  const std::string type = text_member(node, "type", "post_processor");
  if (type == "Sequence") {
    bool adds = false;
    for (const json& inner : member(node, "processors")) adds |= read_post_processor(inner, bos, nesting + 1);
    return adds;
  }
  if (type == "ByteLevel") return false;  // moves offsets, not tokens
  if (type != "TemplateProcessing") {
    throw_input_error("post_processor: type '{}' is not supported; TemplateProcessing and ByteLevel are", type);
  }
  const json& single = member(node, "single");
  const json& first = single.is_array() && !single.empty() ? member(single[0], "SpecialToken") : kNull;
  if (first.is_null()) return false;
  const std::string name = text_member(first, "id", "post_processor: SpecialToken");
  const json& ids = member(member(member(node, "special_tokens"), name.c_str()), "ids");
  if (!ids.is_array() || ids.size() != 1) {
    throw_input_error("post_processor: special token '{}' has ids {}, a list of one expected", name, shown(ids));
  }
  bos = id_value(ids[0], "post_processor");
  return true;
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

TokenizerSpec read_tokenizer_json(const json& tokenizer, const json& config) {
  if (!tokenizer.is_object()) throw_input_error("tokenizer.json is {}, an object expected", tokenizer.type_name());
  TokenizerSpec spec;
  read_model(member(tokenizer, "model"), spec);
  read_added_tokens(member(tokenizer, "added_tokens"), spec);
  spec.nfc = read_normalizer(member(tokenizer, "normalizer"), 0);
  check_decoder(member(tokenizer, "decoder"));
  bool has_bytes = false;
  if (const json& node = member(tokenizer, "pre_tokenizer"); !node.is_null()) {
    read_pre_tokenizer(node, spec.pre_tokenizer, has_bytes, 0);
  }
  if (!has_bytes) throw_input_error("pre_tokenizer: no ByteLevel in it; only byte-level BPE is supported");

  spec.bos = read_named_token(config, "bos_token", spec);
  spec.eos = read_named_token(config, "eos_token", spec);
  spec.adds_bos = read_post_processor(member(tokenizer, "post_processor"), spec.bos, 0);
  spec.adds_bos = flag_member(config, "add_bos_token", "config", spec.adds_bos) && spec.bos;
  return spec;
}

}  // namespace nibble
