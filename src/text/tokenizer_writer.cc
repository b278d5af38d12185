#include "text/tokenizer_writer.h"

#include <algorithm>
#include <span>
#include <unordered_map>

#include "text/score_merges.h"

namespace nibble {

namespace {

using nlohmann::json;

const char* behavior_name(SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::removed: return "Removed";
    case SplitBehavior::isolated: return "Isolated";
    case SplitBehavior::merged_with_previous: return "MergedWithPrevious";
    case SplitBehavior::merged_with_next: return "MergedWithNext";
    case SplitBehavior::contiguous: return "Contiguous";
  }
  return "";
}

json byte_level(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

json sequence(const char* key, json list) { return {{"type", "Sequence"}, {key, std::move(list)}}; }

json pattern(const char* kind, const std::string& text) { return {{kind, text}}; }

json replace(const char* kind, const std::string& text, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", pattern(kind, text)}, {"content", content}};
}

json strip(bool left, bool right) { return {{"type", "Strip"}, {"strip_left", left}, {"strip_right", right}}; }

json metaspace(const std::string& replacement, const char* scheme, bool split) {
  return {{"type", "Metaspace"}, {"replacement", replacement}, {"prepend_scheme", scheme}, {"split", split}};
}

void append_normalizer(const NormalizerStep& step, json& list) {
  const auto precompiled = [](const std::string& charsmap) {
    return json{{"type", "Precompiled"}, {"precompiled_charsmap", base64_of_bytes(charsmap)}};
  };
  switch (step.kind) {
    case NormalizerKind::nfc: list.push_back({{"type", "NFC"}}); break;
    case NormalizerKind::nfd: list.push_back({{"type", "NFD"}}); break;
    case NormalizerKind::nfkc: list.push_back({{"type", "NFKC"}}); break;
    case NormalizerKind::nfkd: list.push_back({{"type", "NFKD"}}); break;
    case NormalizerKind::lowercase: list.push_back({{"type", "Lowercase"}}); break;
    case NormalizerKind::strip_accents: list.push_back({{"type", "StripAccents"}}); break;
    case NormalizerKind::nmt: list.push_back({{"type", "Nmt"}}); break;
    case NormalizerKind::strip_left: list.push_back(strip(true, false)); break;
    case NormalizerKind::strip_right: list.push_back(strip(false, true)); break;
    case NormalizerKind::prepend: list.push_back({{"type", "Prepend"}, {"prepend", step.text}}); break;
    case NormalizerKind::replace:
      list.push_back(replace(step.is_literal ? "String" : "Regex", step.text, step.content));
      break;
    case NormalizerKind::precompiled: list.push_back(precompiled(step.text)); break;
    case NormalizerKind::sentencepiece: {
      const std::string space(step.spaces.escape ? kSpaceSymbol : " ");
      if (!step.text.empty()) list.push_back(precompiled(step.text));
      if (step.spaces.remove_extra) list.push_back(replace("Regex", "\\A +| +\\z| +(?= )", ""));
      if (step.spaces.add_prefix && !step.spaces.as_suffix) list.push_back({{"type", "Prepend"}, {"prepend", space}});
      if (step.spaces.add_prefix && step.spaces.as_suffix) list.push_back(replace("Regex", "(?<=[\\s\\S])\\z", space));
      if (step.spaces.escape) list.push_back(replace("String", " ", space));
      break;
    }
  }
}

json write_normalizer(const NormalizerSpec& spec) {
  json list = json::array();
  for (const NormalizerStep& step : spec) append_normalizer(step, list);
  if (list.empty()) return nullptr;
  return list.size() == 1 ? list[0] : sequence("normalizers", list);
}

json write_pre_tokenizer(const PreTokenizerSpec& spec) {
  json list = json::array();
  for (size_t s = 0; s < spec.size(); s++) {
    if (const auto* split = std::get_if<SplitStep>(&spec[s])) {
      list.push_back({{"type", "Split"},
                      {"pattern", pattern("Regex", split->pattern)},
                      {"behavior", behavior_name(split->behavior)},
                      {"invert", split->invert}});
    } else if (const auto* meta = std::get_if<MetaspaceStep>(&spec[s])) {
      const char* scheme = meta->prepend == MetaspaceStep::Prepend::always  ? "always"
                           : meta->prepend == MetaspaceStep::Prepend::first ? "first"
                                                                            : "never";
      list.push_back(metaspace(meta->replacement, scheme, meta->split));
    } else if (std::holds_alternative<PrefixSpaceStep>(spec[s])) {
      // Only a ByteLevel adds one; its pattern, if it has one, comes between.
      const bool use_regex = s + 1 < spec.size() && std::holds_alternative<SplitStep>(spec[s + 1]);
      list.push_back(byte_level(true, use_regex));
      s += use_regex ? 2 : 1;
    } else {
      list.push_back(byte_level(false, false));
    }
  }
  if (list.empty()) return nullptr;
  return sequence("pretokenizers", list);
}

json write_decoder(const DecoderSpec& decoder) {
  if (decoder.byte_level) return byte_level(true, true);
  json list = json::array();
  for (const auto& [from, to] : decoder.replacements) {
    list.push_back(from == decoder.lost_in_first && to == " " ? metaspace(from, "always", true)
                                                              : replace("String", from, to));
  }
  if (decoder.byte_fallback) list.push_back({{"type", "ByteFallback"}});
  list.push_back({{"type", "Fuse"}});
  if (decoder.strip_start > 0)
    list.push_back({{"type", "Strip"}, {"content", " "}, {"start", decoder.strip_start}, {"stop", 0}});
  return sequence("decoders", list);
}

std::string token_name(const TokenizerSpec& spec, int32_t id) {
  for (const AddedToken& token : spec.added_tokens)
    if (token.id == id) return token.content;
  for (const auto& [text, known] : spec.vocabulary)
    if (known == id) return text;
  return {};
}

json write_post_processor(const TokenizerSpec& spec) {
  if (spec.prefix.empty() && spec.suffix.empty()) return nullptr;
  json special = json::object();
  const auto template_of = [&](std::initializer_list<const char*> texts) {
    json pieces = json::array();
    const auto add_tokens = [&](std::span<const int32_t> ids, int type) {
      for (const int32_t id : ids) {
        const std::string name = token_name(spec, id);
        pieces.push_back({{"SpecialToken", {{"id", name}, {"type_id", type}}}});
        special[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
      }
    };
    int type = 0;
    for (const char* text : texts) {
      add_tokens(spec.prefix, type);
      pieces.push_back({{"Sequence", {{"id", text}, {"type_id", type}}}});
      add_tokens(spec.suffix, type++);
    }
    return pieces;
  };
  json single = template_of({"A"}), pair = template_of({"A", "B"});
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

// What a file with scores leaves unsaid: its merges in order, as far as they join tokens.
json write_scored_merges(const TokenizerSpec& spec) {
  std::vector<ScoredToken> tokens;
  std::unordered_map<int32_t, std::string_view> texts;
  for (size_t i = 0; i < spec.vocabulary.size(); i++) {
    const auto& [text, id] = spec.vocabulary[i];
    texts.emplace(id, text);
    if (spec.scores[i] != TokenizerSpec::kTakesNoPart) tokens.push_back({text, id, spec.scores[i]});
  }
  json merges = json::array();
  for (const BpeMerge& merge : merges_of_scores(tokens)) {
    if (std::max(merge.left, merge.right) < BpeSymbols::kCharacterBase)
      merges.push_back(json::array({texts.at(merge.left), texts.at(merge.right)}));
  }
  return merges;
}

json write_bpe(const TokenizerSpec& spec) {
  json vocabulary = json::object();
  for (const auto& [text, id] : spec.vocabulary) vocabulary[text] = id;
  for (const AddedToken& token : spec.added_tokens)
    vocabulary.emplace(token.content, token.id);  // a loader gives a token that its model lacks the next free id
  json merges = json::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(json::array({left, right}));
  if (spec.model == TokenModel::scored_bpe) merges = write_scored_merges(spec);
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", spec.unknown_token ? json(*spec.unknown_token) : json(nullptr)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", spec.fuse_unknown},
          {"byte_fallback", spec.byte_fallback},
          {"ignore_merges", spec.ignore_merges},
          {"vocab", vocabulary},
          {"merges", merges}};
}

json write_unigram(const TokenizerSpec& spec) {
  json vocabulary = json::array(), unknown;
  const auto set = [&](int32_t id, const std::string& text, double score) {
    while (static_cast<int32_t>(vocabulary.size()) <= id) vocabulary.push_back(json::array({"", 0.0}));
    vocabulary[id] = json::array({text, score});
    if (text == spec.unknown_token) unknown = id;
  };
  int32_t last = 0;
  for (const auto& [text, id] : spec.vocabulary) last = std::max(last, id);
  for (const AddedToken& token : spec.added_tokens)
    if (token.id < last) set(token.id, token.content, 0.0);  // those beyond are none of the model's
  for (size_t i = 0; i < spec.vocabulary.size(); i++) {
    const bool takes_part = spec.scores[i] != TokenizerSpec::kTakesNoPart;
    set(spec.vocabulary[i].second, spec.vocabulary[i].first, takes_part ? spec.scores[i] : 0.0);
  }
  return {{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", vocabulary}, {"byte_fallback", spec.byte_fallback}};
}

}  // namespace

json write_tokenizer_json(const TokenizerSpec& spec) {
  json added = json::array();
  for (const AddedToken& token : spec.added_tokens) {
    // A loader would normalize a verbatim token once more; it finds the raw text instead.
    const std::string content =
        token.is_verbatim ? replace_all(token.content, kSpaceSymbol, " ", SIZE_MAX) : token.content;
    added.push_back({{"id", token.id},
                     {"content", content},
                     {"single_word", token.single_word},
                     {"lstrip", token.strip_left},
                     {"rstrip", token.strip_right},
                     {"normalized", token.is_normalized && !token.is_verbatim},
                     {"special", token.is_special}});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", write_normalizer(spec.normalizer)},
          {"pre_tokenizer", write_pre_tokenizer(spec.pre_tokenizer)},
          {"post_processor", write_post_processor(spec)},
          {"decoder", write_decoder(spec.decoder)},
          {"model", spec.model == TokenModel::unigram ? write_unigram(spec) : write_bpe(spec)}};
}

json write_tokenizer_config(const TokenizerSpec& spec) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_bos_token", !spec.prefix.empty()},
                 {"add_eos_token", !spec.suffix.empty()}};
  if (spec.bos) config["bos_token"] = token_name(spec, *spec.bos);
  if (spec.eos) config["eos_token"] = token_name(spec, *spec.eos);
  return config;
}

}  // namespace nibble
