// The facts behind each name: patterns, whether whole words go before merges, composed form, and bos.
#include "text/gguf_pre_tokenizers.h"

#include "base/error.h"

namespace nibble {

namespace {

// The cased letters as DeepSeek's first files list them.
const char* const kCasedLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A})"
    R"(\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B})"
    R"(\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139})"
    R"(\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787})"
    R"(\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A})"
    R"(\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
const char* const kDeepseekCjk = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
const char* const kDeepseekPunctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
const char* const kHanAndKana = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
const char* const kBloom = R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";
const char* const kChameleonImages = R"(<sentinel:[0-9]+>|(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z)";

// Words by case: one ends where a capital letter follows a small one.
std::string cased(const std::string& upper, const std::string& lower, const std::string& after) {
  const std::string lead = R"([^\r\n\p{L}\p{N}]?)";
  return lead + upper + "*" + lower + "+" + after + "|" + lead + upper + "+" + lower + "*" + after;
}

std::vector<GgufPreTokenizer> make_table() {
  const std::string contraction = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
  const std::string letters = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
  const std::string spaces = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string single_feed_spaces = R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
  const std::string marks = R"(| ?[^\s\p{L}\p{N}]+)";
  const std::string endings = marks + R"([\r\n]*)" + spaces;
  const std::string slash_endings = marks + R"([\r\n/]*)" + spaces;
  const std::string words = contraction + "|" + letters + "|";

  const std::string llama3 = words + R"(\p{N}{1,3})" + endings;
  const std::string qwen2 = words + R"(\p{N})" + endings;
  const std::string mini_cpm5 = words + R"(\p{N}+)" + endings;
  const std::string qwen35 =
      contraction + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})" + R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + spaces;
  const std::string seed_coder = words + R"(\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" + spaces;
  const std::string bailing =
      R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N})" + marks + R"(+[\r\n]*)" + single_feed_spaces;
  const std::string exaone_moe = contraction + R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N})" + marks +
                                 R"([\r\n/]?)" + single_feed_spaces;
  const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
  const std::string tekken = cased(upper, lower, "") + R"(|\p{N})" + slash_endings;
  const std::string gpt4o = cased(upper, lower, contraction + "?") + R"(|\p{N}{1,3})" + slash_endings;
  // The same, but Chinese characters are words of their own.
  const std::string kimi_k2 = R"(\p{Han}+|)" +
                              cased(R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])",
                                    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])", contraction + "?") +
                              R"(|\p{N}{1,3})" + endings;
  const std::string deepseek_v3 = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
                                  R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" +
                                  spaces;
  return {
      {.names = {"default"}, .steps = {{R"([\p{P}$+<=>\^~|]+)"}, {kGpt2Pattern}, {R"(\p{N}+)"}, {"[0-9][0-9][0-9]"}}},
      {.names = {"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum",
                 "modern-bert", "exaone4", "jais", "trillion", "granite-docling"},
       .steps = {{kGpt2Pattern}}},
      {.names = {"mpt", "olmo"}, .steps = {{kGpt2Pattern}}, .nfc = true},
      {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
                 "jina-v5-nano"},
       .steps = {{llama3}},
       .ignore_merges = true,
       .adds_bos = true},
      {.names = {"dbrx", "smaug-bpe", "chatglm-bpe"}, .steps = {{llama3}}},
      {.names = {"glm4", "glm5"}, .steps = {{llama3}}, .ignore_merges = true},
      {.names = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"}, .steps = {{qwen2}}, .nfc = true},
      {.names = {"stablelm2", "hunyuan", "solar-open", "grok-2"}, .steps = {{qwen2}}},
      {.names = {"qwen35"}, .steps = {{qwen35}}},
      {.names = {"minicpm5"}, .steps = {{R"(\p{N}{1,3})"}, {mini_cpm5}}, .ignore_merges = true},
      {.names = {"seed-coder"}, .steps = {{seed_coder}}},
      {.names = {"bailingmoe", "bailingmoe2", "llada-moe"}, .steps = {{bailing}}},
      {.names = {"exaone-moe"}, .steps = {{exaone_moe}}},
      {.names = {"tekken"}, .steps = {{tekken}}, .ignore_merges = true, .adds_bos = true},
      {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, .steps = {{gpt4o}}},
      {.names = {"kimi-k2"}, .steps = {{kimi_k2}}},
      {.names = {"deepseek-llm"},
       .steps = {{R"([\r\n])"}, {kCasedLetters}, {kDeepseekPunctuation}, {R"(\s+$)"}, {kDeepseekCjk}, {R"(\p{N}+)"}}},
      {.names = {"deepseek-coder"},
       .steps = {{R"([\r\n])"}, {R"(\s?\p{L}+)"}, {R"(\s?\p{P}+)"}, {kDeepseekCjk}, {R"(\p{N})"}}},
      {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
       .steps = {{R"(\p{N}{1,3})"}, {kHanAndKana}, {deepseek_v3}}},
      {.names = {"falcon"}, .steps = {{R"([\p{P}$+<=>\^~|`]+)"}, {kGpt2Pattern}, {"[0-9][0-9][0-9]"}}},
      {.names = {"starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
       .steps = {{R"(\p{N})"}, {kGpt2Pattern}}},
      {.names = {"command-r"}, .steps = {{R"(\p{N})"}, {kGpt2Pattern}}, .nfc = true},
      {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .steps = {{kBloom}}},
      {.names = {"viking"}, .steps = {{kBloom}, {R"(\p{N})"}}},
      {.names = {"chameleon"},
       .steps = {{kChameleonImages}, {R"([\t\n]|    |  )"}, {R"(\p{N})"}, {R"([\p{P}!-/:-@\[-`{-~])"}, {kGpt2Pattern}},
       .adds_bos = true},
  };
}

}  // namespace

std::span<const GgufPreTokenizer> gguf_pre_tokenizers() {
  static const std::vector<GgufPreTokenizer> table = make_table();
  return table;
}

const GgufPreTokenizer& find_gguf_pre_tokenizer(std::string_view name) {
  std::string names;
  for (const GgufPreTokenizer& entry : gguf_pre_tokenizers()) {
    for (const char* known : entry.names) {
      if (known == name) return entry;
      names += names.empty() ? known : std::string(", ") + known;
    }
  }
  throw_input_error("tokenizer.ggml.pre: '{}' is not known; {} are", name, names);
}

}  // namespace nibble
