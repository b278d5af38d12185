#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/naming.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "engine/text.h"
#include "fuzz/load.h"
#include "fuzz/targets.h"
#include "text/chat_template.h"

namespace nibble {

namespace fs = std::filesystem;

namespace {

// A folder in memory, if the system has one, that goes with the process.
class Workspace {
 public:
  Workspace() {
    const fs::path memory = "/dev/shm";
    path_ = (fs::is_directory(memory) ? memory : fs::temp_directory_path()) / fmt::format("nibble_fuzz_{}", getpid());
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Workspace() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

void write_files(const fs::path& folder, const Files& files) {
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const auto& [name, contents] : files)
    if (!name.empty() && name != "." && name != ".." && name.size() < 100)
      std::ofstream(folder / name, std::ios::binary)
          .write(contents.data(), static_cast<std::streamsize>(contents.size()));
}

fs::path model_path(const fs::path& folder, const Files& files) {
  const auto is_gguf = [](const auto& file) { return std::string_view(file.first).ends_with(".gguf"); };
  const auto gguf = std::ranges::find_if(files, is_gguf);
  return gguf == files.end() ? folder : folder / gguf->first;
}

void load_and_step(const fs::path& model) {
  for (const char* backend : {"reference", "cpu"}) {
    Engine engine(model, {.backend = {.name = backend, .num_threads = 1}, .max_len = 64, .prefill_block = 2});
    Session session(engine);
    const auto vocab_size = static_cast<int32_t>(engine.model().config.vocab_size);
    const int32_t tokens[] = {0, vocab_size - 1};
    const auto count = static_cast<size_t>(std::min<int64_t>(2, session.max_len()));
    session.prefill(std::span(tokens).first(count));
    if (backend != std::string_view("reference")) continue;
    stop_tokens(engine.checkpoint());
    check_sampling_options(default_sampling(engine.checkpoint()));
    if (const auto tokenizer = find_tokenizer(engine.checkpoint())) tokenizer->encode("Hello world, 123 <s>\n");
    if (const auto source = find_chat_template(engine.checkpoint()))
      naming(model.string(), [&] { ChatTemplate parsed(*source); });
  }
}

void fuzz_load(Bytes bytes) {
  static const Workspace workspace;
  const Files files = split_files(bytes);
  const fs::path folder = workspace.path() / "model";
  write_files(folder, files);
  input_error_of(folder.string(), [&] { load_and_step(model_path(folder, files)); });
}

}  // namespace nibble
