// nibble tokenize: bytes on stdin to token ids, and back.
#include <cstdio>

#include "base/error.h"
#include "checkpoint/json_file.h"
#include "commands.h"
#include "engine/text.h"

namespace nibble {

namespace {

struct TokenizeArguments {
  std::string path;
  bool bos = false, eos = false, special = false, decode = false;
};

void tokenize(const TokenizeArguments& a) {
  const Tokenizer tokenizer = load_tokenizer(a.path);
  const std::string input = read_stdin();
  if (!a.decode) {
    const std::vector<int32_t> ids =
        tokenizer.encode(input, {.add_bos = a.bos, .add_eos = a.eos, .parse_special = a.special});
    fmt::print("{}\n", nlohmann::json(ids).dump());
    return;
  }
  const nlohmann::ordered_json ids = parse_written_json(input, "stdin");
  if (!ids.is_array()) throw_input_error("stdin: a JSON array of token ids expected, as in [1, 2, 3]");
  std::vector<int32_t> tokens;
  for (const nlohmann::ordered_json& id : ids) {
    if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size())
      throw_input_error("stdin: {} is no token id; whole numbers from 0 to {} expected", id.dump(),
                        tokenizer.vocab_size() - 1);
    tokens.push_back(id.get<int32_t>());
  }
  const std::string text = tokenizer.decode(tokens);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenize", "Turn the bytes on stdin into token ids, or ids into bytes");
  command->footer(
      "MODEL may hold nothing but a tokenizer: a folder with tokenizer.json or tokenizer.model, one of these files, or "
      "a "
      ".gguf file.\n\n"
      "  echo -n 'Hello' | nibble tokenize model.gguf\n"
      "  echo '[1, 2, 3]' | nibble tokenize model.gguf --decode");
  auto a = std::make_shared<TokenizeArguments>();
  add_model_option(*command, a->path);
  CLI::Option* decode = command->add_flag("--decode", a->decode, "The other way: a JSON array of ids to bytes");
  command->add_flag("--bos", a->bos, "Put the model's beginning-of-text tokens first")->excludes(decode);
  command->add_flag("--eos", a->eos, "Put its end-of-text tokens last")->excludes(decode);
  command->add_flag("--special", a->special, "Read special tokens in the text as such; without it they are text")
      ->excludes(decode);
  command->callback([a] { tokenize(*a); });
}

}  // namespace nibble
