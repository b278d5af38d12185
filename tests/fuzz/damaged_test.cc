// Thousands of damaged checkpoints, loaded and run in other processes: each may be refused, with a message that names the
// file, or run, if what was damaged does not matter. Nothing else: no signal, no other exception, no hang, no gigabyte.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
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

struct Damaged {
  const Model* model;
  Files files;
  std::string what;
};

struct Case {
  fs::path folder;  // with the checkpoint's files
  Files files;
};

struct Result {
  Outcome outcome;
  std::string message;
};

Result load_here(const Case& c) {
  Result result{ran, {}};
  try {
    load_and_step(model_path(c.folder, c.files));
  } catch (const InputError& error) {
    result = {is_helpful(error.what(), c.folder) ? refused : unhelpful, error.what()};
  } catch (const std::exception& error) {
    result = {other_exception, error.what()};
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (int64_t{usage.ru_maxrss} * 1024 > kMostBytes) result.outcome = too_much_memory;
  return result;
}

// Loads cases 0 … count - 1, which `make` writes to disk, in child processes. To begin one takes longer than to load a small
// model, so that each takes the next case as long as nothing is wrong, kMostCases at most.
std::vector<Result> load_alone(int count, const std::function<Case(int)>& make) {
  constexpr int kMostCases = 25;
  const TemporaryFolder workspace;
  const auto result_file = [&](int i) { return workspace.path() / std::to_string(i); };
  std::vector<Result> results;
  while (std::ssize(results) < count) {
    const int first = static_cast<int>(results.size()), last = std::min(count, first + kMostCases);
    const pid_t child = fork();
    if (child == 0) {
      for (int i = first; i < last; i++) {
        const Case c = make(i);
        alarm(kSeconds);
        const auto [outcome, message] = load_here(c);
        alarm(0);
        std::ofstream(result_file(i)) << static_cast<char>(outcome) << message;
        if (outcome != ran && outcome != refused) _exit(0);
      }
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    for (int i = first; i < last && fs::exists(result_file(i)); i++) {
      const std::string result = contents_of(result_file(i));
      results.push_back({static_cast<Outcome>(result.at(0)), result.substr(1)});
    }
    if (WIFSIGNALED(status))
      results.push_back({WTERMSIG(status) == SIGALRM ? hang : killed, {}});
    else if (WEXITSTATUS(status) != 0 || std::ssize(results) == first)  // a sanitizer's report is on stderr
      results.push_back({killed, {}});
  }
  return results;
}

TEST(DamagedCheckpoints, AreRefusedOrRun) {
  const std::vector<Model> models = find_models();
  ASSERT_GE(models.size(), 10u);
  const TemporaryFolder workspace;
  const auto damage = [&](int i) {
    Damaged damaged{.model = &models[static_cast<size_t>(i) % models.size()]};
    damaged.files = damaged.model->files;
    Random random(static_cast<uint64_t>(i));
    damaged.what = damage_files(damaged.files, random);
    if (random.one_in(8)) damaged.what += "; " + damage_files(damaged.files, random);
    return damaged;
  };
  const std::vector<Result> results = load_alone(kVariants, [&](int i) {
    Case c{workspace.path() / "model", damage(i).files};
    write_files(c.folder, c.files);
    return c;
  });
  std::map<int, int> outcomes;
  for (int i = 0; i < kVariants; i++) {
    const auto& [outcome, message] = results[static_cast<size_t>(i)];
    outcomes[outcome]++;
    if (outcome == ran || outcome == refused) continue;
    const Damaged damaged = damage(i);
    ADD_FAILURE() << "case " << i << ", " << damaged.model->name << ": " << damaged.what << ": outcome " << outcome
                  << ": " << message;
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
  struct Strange {
    const Model* model;
    const std::string* name;
    size_t kind;
  };
  std::vector<Strange> cases;
  for (const auto& model : {with_tokenizer, sharded, gguf})
    for (const auto& [name, contents] : model->files)
      for (size_t kind = 0; kind < std::size(kinds); kind++) cases.push_back({&*model, &name, kind});
  const TemporaryFolder workspace;
  const std::vector<Result> results = load_alone(static_cast<int>(cases.size()), [&](int i) {
    const auto& [model, name, kind] = cases[static_cast<size_t>(i)];
    Case c{workspace.path() / "model", model->files};
    write_files(c.folder, c.files);
    fs::remove(c.folder / *name);
    kinds[kind].second(c.folder / *name);
    return c;
  });
  for (size_t i = 0; i < cases.size(); i++)
    EXPECT_EQ(results[i].outcome, refused)
        << kinds[cases[i].kind].first << " as " << *cases[i].name << ": " << results[i].message;
}

}  // namespace
}  // namespace nibble
