// nibble logits: the logits after each token of a prompt, as an .npy file.
#include <cstdio>

#include "checkpoint/output_file.h"
#include "commands.h"

namespace nibble {

namespace {

// NumPy's format 1.0: magic, version, the length of a header padded to 64 bytes, the header, the values.
void write_npy(OutputFile& file, const std::vector<float>& values, int64_t rows, int64_t columns) {
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  header.append(63 - (10 + header.size()) % 64, ' ').push_back('\n');
  const auto length = static_cast<uint16_t>(header.size());
  std::string start("\x93NUMPY\x01\x00", 8);
  start.append(reinterpret_cast<const char*>(&length), sizeof length).append(header);
  file.write(0, {reinterpret_cast<const uint8_t*>(start.data()), start.size()});
  file.write(start.size(), {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
  file.commit();
}

struct LogitsArguments {
  ModelArguments model;
  std::string tokens, out;
  bool step = false;
  int64_t block = EngineOptions().kv_spare;  // the most that a cache takes at once
};

void write_logits(const LogitsArguments& a) {
  const std::vector<int32_t> tokens = parse_tokens(a.tokens);
  OutputFile file(a.out);  // what cannot be written is not computed
  ModelFiles files = open_model(a.model.path);
  check_prompt(tokens, *files.model, a.model);
  const auto rows = static_cast<int64_t>(tokens.size());
  const int64_t columns = files.model->config.vocab_size;
  std::vector<float> logits(static_cast<size_t>(rows * columns));  // now, so that what is left must hold the model
  const auto engine = load_engine(a.model, std::move(files));
  Session session(*engine);
  session.forward(tokens, a.step ? 1 : a.block, logits.data());
  write_npy(file, logits, rows, columns);
  fmt::print(stderr, "{}: float32 [{}, {}]\n", a.out, rows, columns);
}

}  // namespace

void add_logits_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("logits", "Write the logits after each token of a prompt as an .npy file");
  command->footer(
      "The file holds float32 [tokens, vocabulary].\n\n"
      "  nibble logits model.gguf --tokens 1,2,3 --out logits.npy");
  auto a = std::make_shared<LogitsArguments>();
  add_model_arguments(*command, a->model);
  command->add_option("--tokens", a->tokens, "Token ids, as in 1,2,3")->required();
  command->add_option("--out", a->out, "The file to write")->required()->check(not_empty);
  CLI::Option* step = command->add_flag("--step", a->step, "Feed the tokens one by one");
  command->add_option("--block", a->block, "Feed them in blocks of so many")
      ->check(CLI::Range(int64_t{1}, a->block))
      ->capture_default_str()
      ->excludes(step);
  command->callback([a] { write_logits(*a); });
}

}  // namespace nibble
