#include "model_list.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <numeric>
#include <set>

#include <fmt/ranges.h>

#include "base/error.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 4;  // ORG/NAME/QUANTIZATION/FILE, and no way round a circle of links
constexpr std::string_view kHubPrefix = "models--";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

fs::path hub_folder() {
  if (const std::string cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  const std::string home = environment("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "huggingface" / "hub";
}

// What is in a folder, by name; nothing if it cannot be read.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    entries.push_back(it->path());
  std::ranges::sort(entries);
  return entries;
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool has_entry(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// The number of a part of a split file, and the name of the whole: "00002", "name" of "name-00002-of-00003". Empty,
// and the same, for a file that is whole.
std::pair<std::string_view, std::string_view> part_of(std::string_view stem) {
  constexpr std::string_view kPattern = "-00002-of-00003";
  if (stem.size() < kPattern.size()) return {{}, stem};
  const std::string_view end = stem.substr(stem.size() - kPattern.size());
  const auto digits = [](std::string_view text) {
    return std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
  };
  if (end[0] != '-' || !digits(end.substr(1, 5)) || end.substr(6, 4) != "-of-" || !digits(end.substr(10)))
    return {{}, stem};
  return {end.substr(1, 5), stem.substr(0, stem.size() - kPattern.size())};
}

void add_models(const fs::path& folder, const std::string& name, int depth, std::vector<FoundModel>& models) {
  if (!name.empty() && has_entry(folder / "config.json")) models.push_back({name, folder});
  const std::string prefix = name.empty() ? "" : name + "/";
  for (const fs::path& entry : entries_of(folder)) {
    if (entry.extension() == ".gguf" && !is_folder(entry)) {
      const std::string stem = entry.stem().string();
      const auto [number, whole] = part_of(stem);
      if (number.empty() || number == "00001") models.push_back({prefix + std::string(whole), entry});
    } else if (depth < kMaxDepth && is_folder(entry)) {
      add_models(entry, prefix + entry.filename().string(), depth + 1, models);
    }
  }
}

// The snapshot that refs/main names, or the one changed last.
fs::path snapshot_of(const fs::path& repository) {
  for (const fs::path& ref : entries_of(repository / "refs"))
    if (ref.filename() == "main") {
      std::string revision;
      if (std::FILE* file = std::fopen(ref.c_str(), "rb")) {
        char bytes[128];
        revision.assign(bytes, std::fread(bytes, 1, sizeof bytes, file));
        std::fclose(file);
      }
      revision.resize(std::min(revision.size(), revision.find_first_of("\r\n /")));
      if (!revision.empty() && is_folder(repository / "snapshots" / revision))
        return repository / "snapshots" / revision;
    }
  fs::path latest;
  fs::file_time_type latest_time = fs::file_time_type::min();
  for (const fs::path& snapshot : entries_of(repository / "snapshots")) {
    std::error_code error;
    const auto time = fs::last_write_time(snapshot, error);
    if (error || time < latest_time) continue;
    latest = snapshot;
    latest_time = time;
  }
  return latest;
}

void add_hub_models(const fs::path& hub, std::vector<FoundModel>& models) {
  for (const fs::path& repository : entries_of(hub)) {
    std::string name = repository.filename().string();
    if (!name.starts_with(kHubPrefix)) continue;
    name.erase(0, kHubPrefix.size());
    if (const size_t at = name.find("--"); at != std::string::npos) name.replace(at, 2, "/");
    const fs::path snapshot = snapshot_of(repository);
    if (!snapshot.empty()) add_models(snapshot, name, 1, models);
  }
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Letters to insert, delete or change (Levenshtein).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); i++) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); j++) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, diagonal + 1, row[j] + 1});
    }
  }
  return row[b.size()];
}

// Up to five names that contain what was typed, or differ from it in few letters.
std::vector<std::string> near_names(const std::string& typed, const std::vector<FoundModel>& models) {
  constexpr size_t kMaxNames = 5, kMaxLetters = 200;
  std::vector<std::pair<size_t, std::string>> near;
  const std::string wanted = lower(typed.substr(0, kMaxLetters));
  for (const FoundModel& model : models) {
    const std::string name = lower(model.name), last = name.substr(name.rfind('/') + 1);
    const size_t letters =
        name.find(wanted) != std::string::npos ? 0 : std::min(distance(wanted, name), distance(wanted, last));
    if (letters <= std::max<size_t>(3, wanted.size() / 3)) near.emplace_back(letters, model.name);
  }
  std::ranges::sort(near);
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(near.size(), kMaxNames); i++) names.push_back(near[i].second);
  return names;
}

}  // namespace

std::vector<fs::path> model_folders() {
  std::vector<fs::path> folders = {fs::path(".cache") / "models"};
  const std::string listed = environment("NIBBLE_MODELS");
  for (size_t at = 0; at < listed.size();) {
    const size_t end = std::min(listed.find(':', at), listed.size());
    if (end > at) folders.emplace_back(listed.substr(at, end - at));
    at = end + 1;
  }
  if (const std::string home = environment("HOME"); !home.empty())
    folders.push_back(fs::path(home) / ".cache" / "nibble" / "models");
  if (const fs::path hub = hub_folder(); !hub.empty()) folders.push_back(hub);
  return folders;
}

std::vector<FoundModel> find_models() {
  std::vector<FoundModel> models;
  std::set<fs::path> seen;
  const fs::path hub = hub_folder();
  for (const fs::path& folder : model_folders()) {
    std::error_code error;
    const fs::path real = fs::canonical(folder, error);
    if (error || !seen.insert(real).second) continue;
    if (folder == hub)
      add_hub_models(folder, models);
    else
      add_models(folder, "", 0, models);
  }
  return models;
}

fs::path model_path(const std::string& name) {
  if (has_entry(name)) return name;
  const std::vector<FoundModel> models = find_models();
  std::vector<FoundModel> exact, ending;
  for (const FoundModel& model : models) {
    if (model.name == name) exact.push_back(model);
    if (model.name.ends_with("/" + name)) ending.push_back(model);
  }
  const std::vector<FoundModel>& matches = exact.empty() ? ending : exact;
  if (matches.size() == 1) return matches[0].path;
  if (matches.empty()) {
    const std::vector<std::string> near = near_names(name, models);
    throw_input_error("{}: there is no such file or folder, and no model of that name{}{}; `nibble models` lists names",
                      name, near.empty() ? "" : "; near it are: ", fmt::join(near, ", "));
  }
  std::vector<std::string> places;
  for (const FoundModel& model : matches) places.push_back(model.path.string());
  throw_input_error("{}: {} models have that name; give the path of one: {}", name, matches.size(),
                    fmt::join(places, ", "));
}

}  // namespace nibble
