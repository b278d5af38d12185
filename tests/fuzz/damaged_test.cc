// Thousands of damaged checkpoints, each loaded and run in a process of its own: it may be refused, with a message that
// names the file, or run, if what was damaged does not matter. Nothing else: no signal, no other exception, no hang, no
// gigabyte.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "base/naming.h"
#include "checkpoint/test_files.h"
#include "fuzz/damage.h"
#include "fuzz/load.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

#ifdef NIBBLE_FEW_VARIANTS  // with AddressSanitizer a process takes ten times as long to begin and end
constexpr int kVariants = 500, kCommands = 50;
#else
constexpr int kVariants = 2000, kCommands = 200;
#endif
constexpr unsigned kSeconds = 10;
constexpr int64_t kMostBytes = int64_t{1} << 30;

struct Model {
  std::string name;
  Files files;
};

std::string contents_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Every checkpoint of the tests, and of the fixtures beside the repository if they are there.
std::vector<Model> find_models() {
  std::vector<Model> models;
  const fs::path data = NIBBLE_TEST_DATA, fixtures = NIBBLE_FIXTURES;
  for (const fs::path& folder : {data / "models", fixtures / "checkpoints", fixtures / "gguf"}) {
    if (!fs::exists(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder)) {
      Model model{.name = entry.path().filename().string()};
      for (const auto& file : fs::directory_iterator(entry.path()))
        if (const std::string name = file.path().filename().string(); !name.starts_with("golden"))
          model.files[name] = contents_of(file.path());
      models.push_back(std::move(model));
    }
  }
  std::ranges::sort(models, {}, &Model::name);
  return models;
}

// A message that says which file, and in our words what of it.
bool is_helpful(const std::string& message, const fs::path& folder) {
  const std::string name = folder.string();
  return message.find(name) != std::string::npos && message.size() > name.size() + 15 &&
         !message.starts_with("[json.exception");
}

enum Outcome { ran = 0, refused = 2, unhelpful = 3, other_exception = 4, hang = 5, killed = 6, too_much_memory = 7 };

// Loads in a child process, which writes its message into `message_file`.
Outcome load_alone(const fs::path& folder, const Files& files, const fs::path& message_file) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(kSeconds);
    int outcome = ran;
    std::string message;
    try {
      load_and_step(model_path(folder, files));
    } catch (const InputError& error) {
      message = error.what();
      outcome = is_helpful(message, folder) ? refused : unhelpful;
    } catch (const std::exception& error) {
      message = error.what();
      outcome = other_exception;
    }
    std::ofstream(message_file) << message;
    _exit(outcome);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? hang : killed;
  if (int64_t{usage.ru_maxrss} * 1024 > kMostBytes) return too_much_memory;
  return static_cast<Outcome>(WEXITSTATUS(status));
}

TEST(DamagedCheckpoints, AreRefusedOrRun) {
  const std::vector<Model> models = find_models();
  ASSERT_GE(models.size(), 10u);
  const TemporaryFolder workspace;
  const fs::path folder = workspace.path() / "model", message_file = workspace.path() / "message";
  std::map<int, int> outcomes;
  for (int i = 0; i < kVariants; i++) {
    const Model& model = models[static_cast<size_t>(i) % models.size()];
    Files files = model.files;
    Random random(static_cast<uint64_t>(i));
    std::string what = damage_files(files, random);
    if (random.one_in(8)) what += "; " + damage_files(files, random);
    write_files(folder, files);
    fs::remove(message_file);
    const Outcome outcome = load_alone(folder, files, message_file);
    outcomes[outcome]++;
    EXPECT_TRUE(outcome == ran || outcome == refused) << "case " << i << ", " << model.name << ": " << what
                                                      << ": outcome " << outcome << ": " << contents_of(message_file);
  }
  fmt::print(
      "{} damaged checkpoints of {} models: {} refused, {} ran; others: {} unhelpful messages, {} other exceptions, "
      "{} hangs, {} signals, {} over 1 GiB\n",
      kVariants, models.size(), outcomes[refused], outcomes[ran], outcomes[unhelpful], outcomes[other_exception],
      outcomes[hang], outcomes[killed], outcomes[too_much_memory]);
  EXPECT_GT(outcomes[refused], kVariants / 2);
  EXPECT_GT(outcomes[ran], kVariants / 20);
}

#ifdef NIBBLE_PROGRAM
TEST(DamagedCheckpoints, EndTheCommandWithCode2) {
  const std::vector<Model> models = find_models();
  const TemporaryFolder workspace;
  const fs::path folder = workspace.path() / "model", errors = workspace.path() / "stderr";
  const std::string commands[] = {"plan",
                                  "logits --threads 1 --tokens 0,1 --out " + (workspace.path() / "out.npy").string(),
                                  "run --threads 1 --tokens 0,1 --max-new-tokens 2"};
  std::map<int, int> codes;
  for (int i = 0; i < kCommands; i++) {
    const Model& model = models[static_cast<size_t>(i) % models.size()];
    Files files = model.files;
    Random random(static_cast<uint64_t>(kVariants + i));
    const std::string what = damage_files(files, random);
    write_files(folder, files);
    const auto& command = commands[static_cast<size_t>(i) % std::size(commands)];
    const int status =
        std::system(fmt::format("NIBBLE_ROOF_MB=8 timeout {} '{}' {} '{}' >/dev/null 2>'{}'", kSeconds, NIBBLE_PROGRAM,
                                command, model_path(folder, files).string(), errors.string())
                        .c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    codes[code]++;
    const std::string message = contents_of(errors);
    EXPECT_TRUE(code == 0 || code == 2) << "case " << i << ", " << model.name << ": " << what << ": " << command << ": "
                                        << message;
    if (code == 2)
      EXPECT_TRUE(message.find("nibble: ") != std::string::npos && is_helpful(message, folder))
          << what << ": " << message;
  }
  fmt::print("{} commands: {} ended with code 2, {} with 0\n", kCommands, codes[2], codes[0]);
  EXPECT_GT(codes[2], kCommands / 2);
}
#endif

// What stands where a file should, and is none.
TEST(StrangeFiles, AreRefusedAtOnce) {
  const std::vector<Model> models = find_models();
  const auto with_tokenizer = std::ranges::find(models, "llama-bf16", &Model::name);
  const auto sharded = std::ranges::find(models, "llama-floats-sharded", &Model::name);
  const auto gguf = std::ranges::find(models, "llama-gguf-mxfp4", &Model::name);
  for (const auto& model : {with_tokenizer, sharded, gguf}) ASSERT_NE(model, models.end());
  const std::pair<const char*, void (*)(const fs::path&)> kinds[] = {
      {"a FIFO", [](const fs::path& path) { mkfifo(path.c_str(), 0600); }},
      {"a folder", [](const fs::path& path) { fs::create_directory(path); }},
      {"a link to itself", [](const fs::path& path) { fs::create_symlink(path.filename(), path); }},
      {"a link to a device", [](const fs::path& path) { fs::create_symlink("/dev/zero", path); }},
      {"an empty file", [](const fs::path& path) { std::ofstream(path).flush(); }},
  };
  const TemporaryFolder workspace;
  const fs::path folder = workspace.path() / "model", message_file = workspace.path() / "message";
  for (const auto& model : {with_tokenizer, sharded, gguf})
    for (const auto& [name, contents] : model->files)
      for (const auto& [kind, make] : kinds) {
        write_files(folder, model->files);
        fs::remove(folder / name);
        make(folder / name);
        EXPECT_EQ(load_alone(folder, model->files, message_file), refused)
            << kind << " as " << name << ": " << contents_of(message_file);
      }
}

}  // namespace
}  // namespace nibble
