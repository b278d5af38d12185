// nibble models: the models known here, where they lie, what they are, and whether they can be run.
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "commands.h"
#include "file_tensors.h"
#include "model_list.h"
#include "models/architectures.h"
#include "text/utf8.h"
#include "weights/importer.h"

namespace nibble {

namespace {

struct ListedModel {
  std::string name, path, architecture, format;  // the last two: empty if the files do not tell
  std::string_view status;                       // "ready", "unsupported", "damaged"
  std::string why;                               // not ready
  int64_t bytes = 0;                             // of the files with weights
};

// "ModelOpt NVFP4" of "U8 + F8_E4M3 scales (ModelOpt NVFP4)"; all of "Q4_1".
std::string short_source(const std::string& source) {
  const size_t open = source.find('(');
  return open == std::string::npos || !source.ends_with(')') ? source
                                                             : source.substr(open + 1, source.size() - open - 2);
}

std::string format_of(const WeightTable& table) {
  std::vector<std::pair<std::string, int64_t>> totals;
  for (const WeightEntry& entry : table.entries())
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what))
      totals.emplace_back(short_source(matrix->info.source), matrix->info.bytes);
  return largest_shares(totals);
}

// Of files that may not be readable as weights.
int64_t size_of(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    const auto bytes = std::filesystem::file_size(path, error);
    return error ? 0 : static_cast<int64_t>(bytes);
  }
  int64_t sum = 0;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
    if (it->path().extension() == ".safetensors") sum += size_of(it->path());
  return sum;
}

// Reads headers only, and survives whatever is in them.
ListedModel list_model(const FoundModel& found, const Backend& backend) {
  ListedModel listed{.name = found.name, .path = found.path.string(), .status = "damaged"};
  try {
    const auto checkpoint = std::make_shared<const Checkpoint>(open_checkpoint(found.path));
    listed.status = "unsupported";
    for (const auto& file : checkpoint->files) listed.bytes += static_cast<int64_t>(file->bytes().size());
    listed.format = stored_types(file_tensors(*checkpoint));
    listed.architecture = architecture_name(*checkpoint);
    check_architecture(*checkpoint);
    const auto source = make_importer(checkpoint);
    const auto model = make_model(*checkpoint, *source);
    listed.format = format_of(model->weights);
    check_no_unknown_tensors(model->weights);
    plan_memory(*model, backend, {.layers = model->kv_layers, .max_len = 1}, 1);  // fails if there is no kernel
    listed.status = "ready";
  } catch (const std::exception& error) {
    listed.why = replace_invalid_utf8(error.what());  // it may quote the file
    if (listed.bytes == 0) listed.bytes = size_of(found.path);
  }
  return listed;
}

void print_models(bool json) {
  const auto backend = make_backend({.num_threads = 1});
  std::vector<ListedModel> models;
  for (const FoundModel& found : find_models()) models.push_back(list_model(found, *backend));
  if (json) {
    auto out = nlohmann::ordered_json::object();
    out["models"] = nlohmann::ordered_json::array();
    for (const ListedModel& m : models)
      out["models"].push_back({{"name", m.name},
                               {"path", m.path},
                               {"architecture", text_or_null(m.architecture)},
                               {"format", text_or_null(m.format)},
                               {"bytes", m.bytes},
                               {"status", m.status},
                               {"why", text_or_null(m.why)}});
    out["folders"] = nlohmann::ordered_json::array();
    for (const auto& folder : model_folders()) out["folders"].push_back(folder.string());
    print_json(out);
    return;
  }
  size_t name_width = 4, architecture_width = 12, format_width = 6;
  for (const ListedModel& m : models) {
    name_width = std::max(name_width, m.name.size());
    architecture_width = std::max(architecture_width, m.architecture.size());
    format_width = std::max(format_width, m.format.size());
  }
  if (!models.empty())
    fmt::print("{:<{}}  {:<{}}  {:<{}}  {:>10}  path\n", "name", name_width, "architecture", architecture_width,
               "format", format_width, "size");
  for (const ListedModel& m : models) {
    fmt::print("{:<{}}  {:<{}}  {:<{}}  {:>10}  {}\n", m.name, name_width, m.architecture, architecture_width, m.format,
               format_width, bytes_text(static_cast<double>(m.bytes)), m.path);
    if (!m.why.empty()) fmt::print("    {}: {}\n", m.status == "damaged" ? "damaged" : "cannot be run", m.why);
  }
  if (!models.empty()) return;
  fmt::print(stderr, "no models in:\n");
  for (const auto& folder : model_folders()) fmt::print(stderr, "  {}\n", folder.string());
}

}  // namespace

void add_models_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("models", "List the models known here, by names that every command takes");
  command->footer(
      "Looks into .cache/models here, the folders of NIBBLE_MODELS (\":\" between them), ~/.cache/nibble/models, and\n"
      "the Hugging Face hub's cache (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface). A name may be shortened to what\n"
      "stands behind one of its slashes. Reads headers only; what cannot be run is listed with the reason.");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "JSON instead of a table");
  command->callback([json] { print_models(*json); });
}

}  // namespace nibble
