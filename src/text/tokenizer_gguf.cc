// Reads a tokenizer from the metadata of a GGUF file, which names its split patterns instead of giving them.
#include "base/error.h"
#include "text/tokenizer_spec.h"

namespace nibble {

namespace {

using nlohmann::json;

const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What a value of tokenizer.ggml.pre stands for. A new tokenizer is one more entry.
struct NamedPreTokenizer {
  const char* name;
  std::vector<SplitStep> steps;
  bool ignore_merges = false;
  bool nfc = false;
  bool adds_bos = false;  // where the file does not say
};

const std::vector<NamedPreTokenizer>& named_pre_tokenizers() {
  static const std::vector<NamedPreTokenizer> table = {
      {.name = "gpt-2", .steps = {{kGpt2Pattern}}},
      {.name = "llama-bpe", .steps = {{kLlama3Pattern}}, .ignore_merges = true, .adds_bos = true},
      {.name = "qwen2", .steps = {{kQwen2Pattern}}, .nfc = true},
      {.name = "smollm", .steps = {{"\\p{N}"}, {kGpt2Pattern}}},
  };
  return table;
}

const NamedPreTokenizer& find_pre_tokenizer(const std::string& name) {
  std::string names;
  for (const NamedPreTokenizer& entry : named_pre_tokenizers()) {
    if (entry.name == name) return entry;
    names += names.empty() ? entry.name : std::string(", ") + entry.name;
  }
  throw_input_error("tokenizer.ggml.pre: '{}' is not known; {} are", name, names);
}

enum TokenType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

const json kNull;

const json& member(const json& metadata, const std::string& key) {
  const auto it = metadata.find("tokenizer.ggml." + key);
  return it == metadata.end() ? kNull : *it;
}

std::string text_member(const json& metadata, const std::string& key) {
  const json& value = member(metadata, key);
  if (!value.is_string()) throw_input_error("tokenizer.ggml.{} is {}, a string expected", key, value.type_name());
  return value.get<std::string>();
}

const json& list_member(const json& metadata, const std::string& key) {
  const json& value = member(metadata, key);
  if (!value.is_array()) throw_input_error("tokenizer.ggml.{} is {}, a list expected", key, value.type_name());
  return value;
}

const std::string& text_of(const json& list, size_t i, const char* key) {
  if (!list[i].is_string())
    throw_input_error("tokenizer.ggml.{}: entry {} is {}, a string expected", key, i, list[i].type_name());
  return list[i].get_ref<const std::string&>();
}

std::optional<int32_t> id_member(const json& metadata, const std::string& key, size_t num_tokens) {
  const json& value = member(metadata, key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_number_integer() || value < 0 || value >= num_tokens) {
    throw_input_error("tokenizer.ggml.{} is {}, but the vocabulary has {} tokens", key, shown(value), num_tokens);
  }
  return value.get<int32_t>();
}

void read_tokens(const json& metadata, TokenizerSpec& spec) {
  const json& tokens = list_member(metadata, "tokens");
  const json& types = member(metadata, "token_type");
  if (tokens.size() > TokenizerSpec::kMaxVocabulary) {
    throw_input_error("tokenizer.ggml.tokens: {} tokens, at most {} expected", tokens.size(),
                      TokenizerSpec::kMaxVocabulary);
  }
  if (!types.is_null() && (!types.is_array() || types.size() != tokens.size())) {
    throw_input_error("tokenizer.ggml.token_type: {} entries, {} expected, one for each token", types.size(),
                      tokens.size());
  }
  for (size_t i = 0; i < tokens.size(); i++) {
    const std::string& text = text_of(tokens, i, "tokens");
    const auto id = static_cast<int32_t>(i);
    const json& type = types.is_null() ? json(kNormal) : types[i];
    if (!type.is_number_integer() || type < kNormal || type > kByte) {
      throw_input_error("tokenizer.ggml.token_type: token {} ('{}') has type {}, 1 to 6 expected", i, text,
                        shown(type));
    }
    if (type == kControl || type == kUnknown) {
      spec.added_tokens.push_back({.id = id, .content = text, .is_special = true});
    } else if (type == kUserDefined) {
      spec.added_tokens.push_back({.id = id, .content = text});
    } else {
      spec.vocabulary.emplace_back(text, id);
    }
  }
}

}  // namespace

TokenizerSpec read_tokenizer_gguf(const json& metadata) {
  if (!metadata.is_object()) throw_input_error("GGUF metadata is {}, an object expected", metadata.type_name());
  const std::string model = text_member(metadata, "model");
  if (model != "gpt2")
    throw_input_error("tokenizer.ggml.model: '{}' is not supported; gpt2 (byte-level BPE) is", model);
  const NamedPreTokenizer& pre = find_pre_tokenizer(text_member(metadata, "pre"));

  TokenizerSpec spec;
  read_tokens(metadata, spec);
  const json& merges = list_member(metadata, "merges");
  for (size_t rank = 0; rank < merges.size(); rank++)
    spec.merges.push_back(split_merge(text_of(merges, rank, "merges"), rank));
  spec.pre_tokenizer.steps = pre.steps;
  spec.ignore_merges = pre.ignore_merges;
  spec.nfc = pre.nfc;

  const size_t num_tokens = spec.vocabulary.size() + spec.added_tokens.size();
  spec.bos = id_member(metadata, "bos_token_id", num_tokens);
  spec.eos = id_member(metadata, "eos_token_id", num_tokens);
  const json& adds_bos = member(metadata, "add_bos_token");
  if (!adds_bos.is_null() && !adds_bos.is_boolean()) {
    throw_input_error("tokenizer.ggml.add_bos_token is {}, true or false expected", shown(adds_bos));
  }
  spec.adds_bos = (adds_bos.is_null() ? pre.adds_bos : adds_bos.get<bool>()) && spec.bos;
  return spec;
}

}  // namespace nibble
