// Reads the parts of a tokenizer.json around its model: normalizer, pre_tokenizer, decoder and post_processor.
#include <map>

#include "base/error.h"
#include "text/json_members.h"
#include "text/tokenizer_spec.h"
#include "text/utf8.h"

namespace nibble {

namespace {

using nlohmann::json;

constexpr int kMaxNesting = 16;  // of Sequence in Sequence

// The members of a Sequence, one after the other. `read(inner, nesting)` reads each.
template <class Read>
void read_sequence(const json& node, const char* key, const char* where, int nesting, Read read) {
  if (nesting >= kMaxNesting) throw_input_error("{}: nested more than {} deep", where, kMaxNesting);
  const json& list = member(node, key);
  if (!list.is_array()) throw_input_error("{}: Sequence without its list {}", where, key);
  for (const json& inner : list) read(inner, nesting + 1);
}

// {"String": …} or {"Regex": …}
struct Pattern {
  std::string text;
  bool is_literal;
};

Pattern read_pattern(const json& node, const std::string& where) {
  const json& pattern = member(node, "pattern");
  if (!member(pattern, "String").is_null()) return {text_member(pattern, "String", where), true};
  return {text_member(pattern, "Regex", where + ": pattern"), false};
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
  if (known == behaviors.end()) throw_input_error("pre_tokenizer: unknown behavior '{}'", name);
  return known->second;
}

MetaspaceStep read_metaspace(const json& node, const std::string& where) {
  MetaspaceStep step;
  step.replacement = text_member(node, "replacement", where);
  step.split = flag_member(node, "split", where, true);
  const json& scheme = member(node, "prepend_scheme");
  const bool prepends = flag_member(node, "add_prefix_space", where, true);  // what older files have instead
  if (scheme.is_null()) {
    step.prepend = prepends ? MetaspaceStep::Prepend::always : MetaspaceStep::Prepend::never;
  } else if (scheme == "always" || scheme == "first" || scheme == "never") {
    step.prepend = scheme == "always"  ? MetaspaceStep::Prepend::always
                   : scheme == "first" ? MetaspaceStep::Prepend::first
                                       : MetaspaceStep::Prepend::never;
  } else {
    throw_input_error("{}: prepend_scheme is {}, \"always\", \"first\" or \"never\" expected", where, shown(scheme));
  }
  const bool is_character =
      !step.replacement.empty() && read_utf8(step.replacement, 0).num_bytes == step.replacement.size();
  if (!is_character) throw_input_error("{}: replacement is '{}', one character expected", where, step.replacement);
  return step;
}

void read_pre_tokenizer(const json& node, TokenizerSpec& spec, int nesting) {
  const std::string type = text_member(node, "type", "pre_tokenizer");
  const std::string where = "pre_tokenizer: " + type;
  PreTokenizerSpec& steps = spec.pre_tokenizer;
  if (type == "Sequence") {
    read_sequence(node, "pretokenizers", "pre_tokenizer", nesting,
                  [&](const json& inner, int depth) { read_pre_tokenizer(inner, spec, depth); });
  } else if (type == "ByteLevel") {
    if (spec.byte_level) throw_input_error("pre_tokenizer: two of type ByteLevel; one expected");
    spec.byte_level = true;
    if (flag_member(node, "add_prefix_space", where, true)) steps.emplace_back(PrefixSpaceStep{});
    if (flag_member(node, "use_regex", where, true)) steps.emplace_back(SplitStep{kGpt2Pattern});
    steps.emplace_back(ByteLevelStep{});
  } else if (type == "Digits") {
    const bool individual = flag_member(node, "individual_digits", where);
    steps.emplace_back(SplitStep{"\\p{N}", individual ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Split") {
    const auto [text, is_literal] = read_pattern(node, where);
    steps.emplace_back(SplitStep{is_literal ? quote_regex(text) : text,
                                 read_behavior(text_member(node, "behavior", where)),
                                 flag_member(node, "invert", where)});
  } else if (type == "Punctuation") {
    const SplitBehavior behavior = member(node, "behavior").is_null()
                                       ? SplitBehavior::isolated
                                       : read_behavior(text_member(node, "behavior", where));
    steps.emplace_back(SplitStep{"[\\p{P}$+<=>\\^`|~]", behavior});
  } else if (type == "Whitespace") {
    // This pattern runs on another library there, whose \w is Unicode's.
    const std::string word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}";
    steps.emplace_back(SplitStep{"[" + word + "]+|[^" + word + "\\s]+", SplitBehavior::removed, true});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(SplitStep{"\\s", SplitBehavior::removed});
  } else if (type == "CharDelimiterSplit") {
    steps.emplace_back(SplitStep{quote_regex(text_member(node, "delimiter", where)), SplitBehavior::removed});
  } else if (type == "Metaspace") {
    if (spec.byte_level) throw_input_error("{}: after ByteLevel is not supported", where);
    steps.emplace_back(read_metaspace(node, where));
  } else {
    throw_input_error(
        "pre_tokenizer: type '{}' is not supported; Sequence, Split, Digits, ByteLevel, Metaspace, Punctuation, "
        "Whitespace, WhitespaceSplit and CharDelimiterSplit are",
        type);
  }
}

void read_normalizer(const json& node, NormalizerSpec& steps, int nesting) {
  static const std::map<std::string, NormalizerKind> simple = {
      {"NFC", NormalizerKind::nfc},
      {"NFD", NormalizerKind::nfd},
      {"NFKC", NormalizerKind::nfkc},
      {"NFKD", NormalizerKind::nfkd},
      {"Lowercase", NormalizerKind::lowercase},
      {"StripAccents", NormalizerKind::strip_accents},
      {"Nmt", NormalizerKind::nmt},
  };
  const std::string type = text_member(node, "type", "normalizer");
  const std::string where = "normalizer: " + type;
  if (type == "Sequence") {
    read_sequence(node, "normalizers", "normalizer", nesting,
                  [&](const json& inner, int depth) { read_normalizer(inner, steps, depth); });
  } else if (const auto known = simple.find(type); known != simple.end()) {
    steps.push_back({.kind = known->second});
  } else if (type == "Strip") {
    if (flag_member(node, "strip_left", where, true)) steps.push_back({.kind = NormalizerKind::strip_left});
    if (flag_member(node, "strip_right", where, true)) steps.push_back({.kind = NormalizerKind::strip_right});
  } else if (type == "Prepend") {
    steps.push_back({.kind = NormalizerKind::prepend, .text = text_member(node, "prepend", where)});
  } else if (type == "Replace") {
    const auto [text, is_literal] = read_pattern(node, where);
    steps.push_back({.kind = NormalizerKind::replace,
                     .text = text,
                     .content = text_member(node, "content", where),
                     .is_literal = is_literal});
  } else if (type == "Precompiled") {
    const auto charsmap = bytes_of_base64(text_member(node, "precompiled_charsmap", where));
    if (!charsmap) throw_input_error("{}: precompiled_charsmap is no base64", where);
    if (!charsmap->empty()) steps.push_back({.kind = NormalizerKind::precompiled, .text = *charsmap});
  } else {
    throw_input_error(
        "normalizer: type '{}' is not supported; Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, "
        "Prepend, Replace, Precompiled and Nmt are",
        type);
  }
}

void read_strip(const json& node, bool is_fused, DecoderSpec& decoder) {
  const json &start = member(node, "start"), &stop = member(node, "stop");
  const bool is_known = member(node, "content") == " " && start.is_number_integer() && start >= 0 &&
                        start <= DecoderSpec::kAllSpaces && (stop.is_null() || stop == 0) && is_fused;
  if (!is_known) {
    throw_input_error("decoder: Strip is {}; only spaces at the start of the whole text (after Fuse) can be stripped",
                      shown(node));
  }
  decoder.strip_start = start.get<int32_t>();
}

void read_decoder(const json& node, DecoderSpec& decoder, bool& is_fused, int nesting) {
  const std::string type = text_member(node, "type", "decoder");
  const std::string where = "decoder: " + type;
  if (type == "Sequence") {
    read_sequence(node, "decoders", "decoder", nesting,
                  [&](const json& inner, int depth) { read_decoder(inner, decoder, is_fused, depth); });
  } else if (type == "ByteLevel") {
    decoder.byte_level = true;
  } else if (type == "ByteFallback") {
    decoder.byte_fallback = true;
  } else if (type == "Fuse") {
    is_fused = true;
  } else if (type == "Metaspace") {
    const MetaspaceStep step = read_metaspace(node, where);
    decoder.replacements.emplace_back(step.replacement, " ");
    if (step.prepend != MetaspaceStep::Prepend::never) decoder.lost_in_first = step.replacement;
  } else if (type == "Replace") {
    const auto [text, is_literal] = read_pattern(node, where);
    if (!is_literal) throw_input_error("{}: pattern '{}' is a Regex; only a String is supported", where, text);
    decoder.replacements.emplace_back(text, text_member(node, "content", where));
    constexpr size_t kMaxReplacements = 64;  // each is a pass over every token
    if (decoder.replacements.size() > kMaxReplacements)
      throw_input_error("decoder: more than {} replacements; published files have up to 2", kMaxReplacements);
  } else if (type == "Strip") {
    read_strip(node, is_fused, decoder);
  } else {
    throw_input_error(
        "decoder: type '{}' is not supported; Sequence, ByteLevel, Metaspace, ByteFallback, Fuse, Replace and Strip "
        "are",
        type);
  }
}

// The tokens of one special token of a template.
void append_template_token(const json& node, const json& piece, std::vector<int32_t>& tokens) {
  const std::string name = text_member(piece, "id", "post_processor: SpecialToken");
  const json& ids = member(member(member(node, "special_tokens"), name.c_str()), "ids");
  if (!ids.is_array())
    throw_input_error("post_processor: special token '{}' has ids {}, a list expected", name, shown(ids));
  for (const json& id : ids) tokens.push_back(id_value(id, "post_processor"));
}

void read_post_processor(const json& node, TokenizerSpec& spec, int nesting) {
  const std::string type = text_member(node, "type", "post_processor");
  if (type == "Sequence") {
    read_sequence(node, "processors", "post_processor", nesting,
                  [&](const json& inner, int depth) { read_post_processor(inner, spec, depth); });
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    for (const auto& [key, tokens] : {std::pair("cls", &spec.prefix), std::pair("sep", &spec.suffix)}) {
      const json& pair = member(node, key);
      if (!pair.is_array() || pair.size() != 2) {
        throw_input_error("post_processor: {}: {} is {}, a token and its id expected", type, key, shown(pair));
      }
      tokens->push_back(id_value(pair[1], "post_processor"));
    }
  } else if (type == "TemplateProcessing") {
    const json& single = member(node, "single");
    if (!single.is_array()) throw_input_error("post_processor: single is {}, a list expected", single.type_name());
    std::vector<int32_t> before, after;
    int num_texts = 0;
    for (const json& piece : single) {
      if (const json& token = member(piece, "SpecialToken"); !token.is_null()) {
        append_template_token(node, token, num_texts == 0 ? before : after);
      } else if (member(member(piece, "Sequence"), "id") == "A") {
        num_texts++;
      } else {
        throw_input_error("post_processor: single has {}, SpecialToken or Sequence A expected", shown(piece));
      }
    }
    if (num_texts != 1) throw_input_error("post_processor: single has the text {} times, once expected", num_texts);
    spec.prefix.insert(spec.prefix.begin(), before.begin(), before.end());  // each processor wraps the one before
    spec.suffix.insert(spec.suffix.end(), after.begin(), after.end());
  } else if (type != "ByteLevel") {  // which moves offsets, not tokens
    throw_input_error(
        "post_processor: type '{}' is not supported; Sequence, TemplateProcessing, ByteLevel, RobertaProcessing and "
        "BertProcessing are",
        type);
  }
}

}  // namespace

void read_pipeline(const json& tokenizer, TokenizerSpec& spec) {
  if (const json& node = member(tokenizer, "normalizer"); !node.is_null()) read_normalizer(node, spec.normalizer, 0);
  if (const json& node = member(tokenizer, "pre_tokenizer"); !node.is_null()) read_pre_tokenizer(node, spec, 0);
  bool is_fused = false;
  if (const json& node = member(tokenizer, "decoder"); !node.is_null()) {
    read_decoder(node, spec.decoder, is_fused, 0);
  } else {
    spec.decoder.byte_level = spec.byte_level;
  }
  if (spec.byte_level != spec.decoder.byte_level) {
    throw_input_error("{}: no ByteLevel in it, but in the {}; both expected or none",
                      spec.byte_level ? "decoder" : "pre_tokenizer", spec.byte_level ? "pre_tokenizer" : "decoder");
  }
  if (const json& node = member(tokenizer, "post_processor"); !node.is_null()) read_post_processor(node, spec, 0);
}

}  // namespace nibble
