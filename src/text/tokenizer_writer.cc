#include "text/tokenizer_writer.h"

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

json write_pre_tokenizer(const PreTokenizerSpec& spec) {
  // A prefix before the last step can only come from a ByteLevel that brought that step as its own pattern.
  const bool use_regex = spec.add_prefix_space && spec.prefix_step < spec.steps.size();
  json list = json::array();
  for (size_t s = 0; s < spec.steps.size() - (use_regex ? 1 : 0); s++) {
    const SplitStep& step = spec.steps[s];
    list.push_back({{"type", "Split"},
                    {"pattern", {{"Regex", step.pattern}}},
                    {"behavior", behavior_name(step.behavior)},
                    {"invert", step.invert}});
  }
  list.push_back(byte_level(spec.add_prefix_space, use_regex));
  return {{"type", "Sequence"}, {"pretokenizers", list}};
}

std::string token_name(const TokenizerSpec& spec, int32_t id) {
  for (const AddedToken& token : spec.added_tokens)
    if (token.id == id) return token.content;
  for (const auto& [text, known] : spec.vocabulary)
    if (known == id) return text;
  return {};
}

json write_post_processor(const TokenizerSpec& spec) {
  if (!spec.adds_bos) return nullptr;
  const std::string name = token_name(spec, *spec.bos);
  const auto sequence = [](const char* id, int type) { return json{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
  const auto bos = [&](int type) { return json{{"SpecialToken", {{"id", name}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", json::array({bos(0), sequence("A", 0)})},
          {"pair", json::array({bos(0), sequence("A", 0), bos(1), sequence("B", 1)})},
          {"special_tokens", {{name, {{"id", name}, {"ids", {*spec.bos}}, {"tokens", {name}}}}}}};
}

}  // namespace

json write_tokenizer_json(const TokenizerSpec& spec) {
  json vocabulary = json::object();
  for (const auto& [text, id] : spec.vocabulary) vocabulary[text] = id;
  json added = json::array();
  for (const AddedToken& token : spec.added_tokens) {
    vocabulary.emplace(token.content, token.id);  // a loader gives a token that its model lacks the next free id
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.strip_left},
                     {"rstrip", token.strip_right},
                     {"normalized", token.is_normalized},
                     {"special", token.is_special}});
  }
  json merges = json::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(json::array({left, right}));
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", spec.nfc ? json{{"type", "NFC"}} : json(nullptr)},
          {"pre_tokenizer", write_pre_tokenizer(spec.pre_tokenizer)},
          {"post_processor", write_post_processor(spec)},
          {"decoder", byte_level(true, true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", spec.unknown_token ? json(*spec.unknown_token) : json(nullptr)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", spec.fuse_unknown},
            {"byte_fallback", false},
            {"ignore_merges", spec.ignore_merges},
            {"vocab", vocabulary},
            {"merges", merges}}}};
}

json write_tokenizer_config(const TokenizerSpec& spec) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"add_bos_token", spec.adds_bos}};
  if (spec.bos) config["bos_token"] = token_name(spec, *spec.bos);
  if (spec.eos) config["eos_token"] = token_name(spec, *spec.eos);
  return config;
}

}  // namespace nibble
