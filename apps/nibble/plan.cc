// nibble plan: what would run, how, and where, without loading a weight.
#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/naming.h"
#include "commands.h"
#include "engine/packed_cache.h"
#include "file_tensors.h"
#include "models/architectures.h"
#include "weights/importer.h"

namespace nibble {

namespace {

struct PlanArguments {
  ModelArguments model;
  bool all = false, json = false;
};

// A weight, or in the table a run of weights that differ in nothing but the layer's number.
struct PlanRow {
  std::string name, source, layout, kernel;
  std::vector<int64_t> shape;
  FormatId packed_format;
  std::optional<FormatId> converted_from;  // the file's format, if the backend has no kernel for it
  int64_t count = 1, bytes = 0;
  std::vector<std::string> tensors;  // of the file

  // "Q8_0", "Q8_0 (from F32)".
  std::string packed_as() const {
    return converted_from ? fmt::format("{} (from {})", format_name(packed_format), format_name(*converted_from))
                          : std::string(format_name(packed_format));
  }
};

PlanRow row_of(const WeightEntry& entry, const Backend& backend, WeightSource& source) {
  if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
    const MatrixInfo& info = matrix->info;
    const PackPlan pack = backend.plan_pack(info.format, info.E, info.N, info.K);
    PlanRow row{.name = entry.name(),
                .source = info.source,
                .layout = pack.layout,
                .kernel = pack.kernel,
                .shape = {info.N, info.K},
                .packed_format = pack.format,
                .converted_from = {},
                .bytes = pack.bytes,
                .tensors = source.tensors_of(matrix->request)};
    if (matrix->request.is_experts || info.E != 1) row.shape.insert(row.shape.begin(), info.E);
    if (pack.format != info.format) row.converted_from = info.format;
    return row;
  }
  const auto& vector = std::get<VectorRequest>(entry.what);
  PlanRow row{.name = entry.name(),
              .source = "vector",
              .layout = "as it is",
              .kernel = "-",
              .shape = {vector.size},
              .packed_format = FormatId::f32,
              .converted_from = {},
              .bytes = entry.bytes(),
              .tensors = source.tensors_of(vector)};
  if (vector.is_experts) row.shape.insert(row.shape.begin(), vector.E);
  return row;
}

std::vector<PlanRow> plan_rows(const WeightTable& table, const Backend& backend) {
  std::vector<PlanRow> rows;
  for (const WeightEntry& entry : table.entries()) rows.push_back(row_of(entry, backend, table.source()));
  return rows;
}

// Rows that differ only in their layer become one.
std::vector<PlanRow> grouped(const std::vector<PlanRow>& rows) {
  std::vector<PlanRow> groups;
  std::map<std::string, size_t> place;
  for (const PlanRow& row : rows) {
    PlanRow group = row;
    group.name = without_layer(row.name);
    const std::string key =
        fmt::format("{}\n{}\n{}\n{}", group.name, group.source, shape_text(group.shape), group.packed_as());
    const auto [it, is_new] = place.try_emplace(key, groups.size());
    if (is_new) {
      groups.push_back(std::move(group));
    } else {
      groups[it->second].count++;
      groups[it->second].bytes += row.bytes;
    }
  }
  return groups;
}

// Bytes of packed weights that one step reads: each linear's matrix, of experts those that are chosen.
int64_t step_weight_bytes(const Model& model, const std::vector<PlanRow>& rows) {
  int64_t bytes = 0;
  const Step step = model.forward(1, LogitsFor::last_token);
  for (const Op& op : step.ops)
    bytes += weight_bytes_read(op, step.M, [&](WeightId id) {
      const auto i = static_cast<size_t>(id.index);
      return MatrixSize{std::get<MatrixEntry>(model.weights.entries()[i].what).info.E, rows[i].bytes};
    });
  return bytes;
}

// The phases of a decode step, if the backend tells; each matrix's kernel becomes that of the phases that read it.
std::vector<PlannedPhase> plan_phases(const Model& model, const Backend& backend, const KvCacheShape& cache,
                                      std::vector<PlanRow>& rows) {
  std::vector<PlannedPhase> phases =
      backend.plan_phases(model.forward(1, LogitsFor::all_tokens), weight_shapes(model.weights), cache);
  std::map<int, std::vector<std::string>> kernels;
  for (const PlannedPhase& phase : phases)
    for (WeightId id : phase.matrices)
      if (auto& of_matrix = kernels[id.index]; std::ranges::count(of_matrix, phase.kernel) == 0)
        of_matrix.push_back(phase.kernel);
  for (const auto& [index, names] : kernels)
    rows[static_cast<size_t>(index)].kernel = fmt::format("{}", fmt::join(names, ", "));
  return phases;
}

struct Plan {
  std::string path;
  const Model& model;
  const Backend& backend;
  KvCacheShape cache;
  MemoryPlan memory;
  std::vector<PlanRow> rows;
  std::vector<PlannedPhase> phases;
  std::vector<FileTensor> file_tensors;
  int64_t step_bytes;
  double roof_gbps;
  std::optional<PackedCache> packed_cache = {};

  double roof_tok_s() const { return roof_gbps * 1e9 / static_cast<double>(step_bytes); }
};

// What the next start would find in the packed cache.
std::string_view state_name(PackedCache::State state) {
  switch (state) {
    case PackedCache::State::absent: return "absent";
    case PackedCache::State::ready: return "ready";
    case PackedCache::State::to_be_compared: return "to_be_compared";
    case PackedCache::State::unusable: break;
  }
  return "unusable";
}

std::string packed_cache_text(const PackedCache& cache) {
  const PackedCache::Status status = cache.status();
  const std::string bytes = bytes_text(static_cast<double>(cache.bytes()));
  switch (status.state) {
    case PackedCache::State::absent: return fmt::format("nothing yet; loading writes {}", bytes);
    case PackedCache::State::ready: return fmt::format("{}, read in place of the checkpoint", bytes);
    case PackedCache::State::to_be_compared: return fmt::format("{}, if the checkpoint's bytes are the same", bytes);
    case PackedCache::State::unusable: break;
  }
  return fmt::format("to be written anew ({}), since {}", bytes, status.why);
}

nlohmann::ordered_json packed_cache_json(const std::optional<PackedCache>& cache) {
  if (!cache) return {};
  const PackedCache::Status status = cache->status();
  return {{"path", cache->path().string()},
          {"state", state_name(status.state)},
          {"why", status.why.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(status.why)},
          {"bytes", cache->bytes()}};
}

void print_plan_json(const Plan& p) {
  nlohmann::ordered_json json;
  json["architecture"] = p.model.config.architecture;
  json["backend"] = p.backend.name();
  json["backend_description"] = p.backend.description();
  json["tensors"] = nlohmann::ordered_json::array();
  for (const PlanRow& row : p.rows) {
    json["tensors"].push_back({{"name", row.name},
                               {"source", row.source},
                               {"shape", row.shape},
                               {"format", format_name(row.packed_format)},
                               {"layout", row.layout},
                               {"kernel", row.kernel},
                               {"device", p.backend.name()},
                               {"bytes", row.bytes},
                               {"stored_in", row.tensors}});
    json["tensors"].back()["converted_from"] =
        row.converted_from ? nlohmann::ordered_json(format_name(*row.converted_from)) : nlohmann::ordered_json();
  }
  json["unused_tensors"] = nlohmann::ordered_json::array();
  for (const FileTensor& t : p.file_tensors)
    if (t.used_by.empty())
      json["unused_tensors"].push_back(
          {{"name", t.tensor->name}, {"why", t.unused_because}, {"bytes", t.tensor->bytes.size()}, {"file", t.file}});
  json["unused_settings"] = p.model.weights.source().unused_settings();
  json["file_tensors"] = file_tensors_json(p.file_tensors, true);
  json["phases"] = nlohmann::ordered_json::array();
  for (const PlannedPhase& phase : p.phases)
    json["phases"].push_back({{"name", phase.name}, {"kernel", phase.kernel}, {"weight_bytes", phase.weight_bytes}});
  json["routes"] = nlohmann::ordered_json::array();
  for (const PlannedRoute& route : p.backend.routes())
    json["routes"].push_back(
        {{"what", route.what}, {"tokens", route.tokens}, {"kernels", route.kernels}, {"reason", route.reason}});
  json["weights_bytes"] = p.memory.weights_bytes;
  json["kv_cache_bytes"] = p.memory.kv_cache_bytes;
  json["kv_cache_type"] = kv_cache_type_name(p.cache.type);
  json["ctx"] = p.cache.max_len;
  json["scratch_bytes"] = p.memory.scratch_bytes;
  json["available_bytes"] = available_memory_bytes();
  json["packed_cache"] = packed_cache_json(p.packed_cache);
  json["bytes_per_token"] = p.step_bytes;
  json["kv_bytes_per_position"] = p.cache.bytes_per_token();
  json["roof_gbps"] = p.roof_gbps;
  json["roof_tok_s"] = p.roof_tok_s();
  print_json(json);
}

void print_rows(const std::vector<PlanRow>& rows, std::string_view device) {
  size_t name_width = 6, source_width = 11, shape_width = 5, packed_width = 9, kernel_width = 6;
  for (const PlanRow& row : rows) {
    name_width = std::max(name_width, row.name.size());
    source_width = std::max(source_width, row.source.size());
    shape_width = std::max(shape_width, shape_text(row.shape).size());
    packed_width = std::max(packed_width, row.packed_as().size());
    kernel_width = std::max(kernel_width, row.kernel.size());
  }
  const auto line = [&](const auto& count, std::string_view name, std::string_view source, std::string_view shape,
                        std::string_view packed, std::string_view kernel, std::string_view where,
                        std::string_view bytes) {
    fmt::print("{:>5}  {:<{}}  {:<{}}  {:<{}}  {:<{}}  {:<{}}  {:<9}  {:>10}\n", count, name, name_width, source,
               source_width, shape, shape_width, packed, packed_width, kernel, kernel_width, where, bytes);
  };
  line("count", "tensor", "in the file", "shape", "packed as", "kernel", "device", "bytes");
  for (const PlanRow& row : rows)
    line(row.count, row.name, row.source, shape_text(row.shape), row.packed_as(), row.kernel, device,
         bytes_text(static_cast<double>(row.bytes)));
}

// In their order; those of different layers on one line.
void print_phases(const std::vector<PlannedPhase>& phases) {
  if (phases.empty()) return;
  struct Group {
    const PlannedPhase* phase;
    int64_t count = 0, bytes = 0;
  };
  std::vector<Group> groups;
  size_t name_width = 0, kernel_width = 0;
  for (const PlannedPhase& phase : phases) {
    auto group = std::ranges::find_if(
        groups, [&](const Group& g) { return g.phase->name == phase.name && g.phase->kernel == phase.kernel; });
    if (group == groups.end()) group = groups.insert(groups.end(), {.phase = &phase});
    group->count++;
    group->bytes += phase.weight_bytes;
    name_width = std::max(name_width, phase.name.size());
    kernel_width = std::max(kernel_width, phase.kernel.size());
  }
  fmt::print("\na decode step, {} dispatches:\n", phases.size());
  for (const Group& g : groups)
    fmt::print("{:>5}  {:<{}}  {:<{}}  {:>10}\n", g.count, g.phase->name, name_width, g.phase->kernel, kernel_width,
               g.bytes > 0 ? bytes_text(static_cast<double>(g.bytes)) : "-");
}

void print_routes(const std::vector<PlannedRoute>& routes) {
  if (routes.empty()) return;
  size_t what_width = 0, tokens_width = 6, kernels_width = 7;
  for (const PlannedRoute& route : routes) {
    what_width = std::max(what_width, route.what.size());
    tokens_width = std::max(tokens_width, route.tokens.size());
    kernels_width = std::max(kernels_width, route.kernels.size());
  }
  fmt::print("\nkernels by the number of tokens of a step:\n");
  for (const PlannedRoute& route : routes)
    fmt::print("  {:<{}}  {:<{}}  {:<{}}  {}\n", route.what, what_width, route.tokens, tokens_width, route.kernels,
               kernels_width, route.reason);
}

// By reason; names only for `all`, else those of one layer stand for all.
void print_unused(const std::vector<FileTensor>& tensors, bool all) {
  std::map<std::string, std::vector<std::string>> by_reason;
  size_t count = 0;
  for (const FileTensor& t : tensors)
    if (t.used_by.empty()) {
      by_reason[t.unused_because].push_back(all ? t.tensor->name : without_layer(t.tensor->name));
      count++;
    }
  if (count == 0) return;
  fmt::print("\nnot used, {} tensors:\n", count);
  for (auto& [reason, names] : by_reason) {
    fmt::print("{:>5}  {}\n", names.size(), reason);
    std::ranges::sort(names);
    names.erase(std::ranges::unique(names).begin(), names.end());
    const size_t shown = all ? names.size() : std::min<size_t>(names.size(), 4);
    for (size_t i = 0; i < shown; i++) fmt::print("         {}\n", names[i]);
    if (shown < names.size()) fmt::print("         … (--all shows all)\n");
  }
}

void print_plan(const Plan& p, bool all) {
  const DecoderConfig& c = p.model.config;
  fmt::print("{}: {}, {} layers, hidden {}, {}/{} heads × {}, vocabulary {}\n", p.path, c.architecture, c.num_layers,
             c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.vocab_size);
  fmt::print("backend {} ({})\n\n", p.backend.name(), p.backend.description());
  print_rows(all ? p.rows : grouped(p.rows), p.backend.name());
  print_phases(p.phases);
  print_routes(p.backend.routes());
  print_unused(p.file_tensors, all);
  for (const std::string& setting : p.model.weights.source().unused_settings()) fmt::print("not used: {}\n", setting);
  const auto text = [](int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  fmt::print("\nmemory     {} of weights, {} of KV cache ({} × {} positions), {} of scratch; {} available\n",
             text(p.memory.weights_bytes), text(p.memory.kv_cache_bytes), kv_cache_type_name(p.cache.type),
             p.cache.max_len, text(p.memory.scratch_bytes), bytes_text(static_cast<double>(available_memory_bytes())));
  const int64_t num_rings = std::ranges::count_if(
      p.cache.layers, [&](const KvLayer& layer) { return p.cache.kept(layer) < p.cache.max_len; });
  if (num_rings > 0) {
    const int64_t window = std::ranges::max(p.cache.layers, {}, &KvLayer::window).window;
    fmt::print("windows    {} layers see {} positions, and keep {} more to go back to\n", num_rings, window,
               p.cache.spare);
  }
  if (p.packed_cache)
    fmt::print("packed     {}: {}\n", p.packed_cache->path().string(), packed_cache_text(*p.packed_cache));
  fmt::print("a token    reads {} of weights, and {} for each position before it\n", text(p.step_bytes),
             text(p.cache.bytes_per_token()));
  fmt::print("the roof   {:.1f} GB/s measured now: at most {:.1f} tok/s\n", p.roof_gbps, p.roof_tok_s());
}

// Empty if the configuration does not say.
std::string architecture_if_told(const Checkpoint& checkpoint) {
  try {
    return architecture_name(checkpoint);
  } catch (const InputError&) {
    return {};
  }
}

// What the files hold, for a checkpoint that cannot be run.
void print_files(const Checkpoint& checkpoint, const PlanArguments& a, const char* error) {
  const std::vector<FileTensor> tensors = file_tensors(checkpoint);
  const std::string architecture = architecture_if_told(checkpoint);
  if (a.json) {
    print_json({{"architecture", text_or_null(architecture)},
                {"error", error},
                {"file_tensors", file_tensors_json(tensors, false)}});
    return;
  }
  fmt::print("{}: {}, which cannot be run; {} tensors in the files\n\n", a.model.path,
             architecture.empty() ? "no architecture is named" : architecture, tensors.size());
  struct Group {
    size_t count = 0;
    int64_t bytes = 0;
  };
  std::map<std::tuple<std::string, std::string, std::string>, Group> groups;
  for (const FileTensor& t : tensors) {
    const std::string name = a.all ? t.tensor->name : without_layer(t.tensor->name);
    Group& group = groups[{name, std::string(dtype_name(t.tensor->dtype)), shape_text(t.tensor->shape)}];
    group.count++;
    group.bytes += static_cast<int64_t>(t.tensor->bytes.size());
  }
  size_t name_width = 6, shape_width = 5;
  for (const auto& [key, group] : groups) {
    name_width = std::max(name_width, std::get<0>(key).size());
    shape_width = std::max(shape_width, std::get<2>(key).size());
  }
  fmt::print("{:>5}  {:<{}}  {:<8}  {:<{}}  {:>10}\n", "count", "tensor", name_width, "type", "shape", shape_width,
             "bytes");
  for (const auto& [key, group] : groups)
    fmt::print("{:>5}  {:<{}}  {:<8}  {:<{}}  {:>10}\n", group.count, std::get<0>(key), name_width, std::get<1>(key),
               std::get<2>(key), shape_width, bytes_text(static_cast<double>(group.bytes)));
}

void plan(const PlanArguments& a) {
  const auto checkpoint = std::make_shared<const Checkpoint>(open_checkpoint(a.model.path));
  const auto backend = make_backend(backend_options(a.model));
  const KvCacheType cache_type = choose_kv_cache_type(*backend, kv_cache_type(a.model));
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<Model> model;
  std::vector<PlanRow> rows;
  std::vector<PlannedPhase> phases;
  KvCacheShape cache;
  try {
    check_architecture(*checkpoint);
    source = make_importer(checkpoint);
    model = make_model(*checkpoint, *source);
    naming(a.model.path, [&] { check_no_unknown_tensors(model->weights); });
    rows = plan_rows(model->weights, *backend);
    cache = {.layers = model->kv_layers,
             .max_len = std::min(a.model.ctx, model->config.max_position_embeddings),
             .type = cache_type};
    phases = plan_phases(*model, *backend, cache, rows);
  } catch (const InputError& error) {
    print_files(*checkpoint, a, error.what());
    throw;
  }
  const int64_t step_bytes = step_weight_bytes(*model, rows);
  backend->measure_read_gbps();
  Plan p{.path = a.model.path,
         .model = *model,
         .backend = *backend,
         .cache = cache,
         .memory = plan_memory(*model, *backend, cache, EngineOptions{}.prefill_block),
         .rows = std::move(rows),
         .phases = std::move(phases),
         .file_tensors = file_tensors(*checkpoint, *model),
         .step_bytes = step_bytes,
         .roof_gbps = backend->measure_read_gbps()};
  if (!a.model.packed_cache.empty())
    p.packed_cache.emplace(a.model.packed_cache, *checkpoint, model->weights, *backend);
  if (a.json)
    print_plan_json(p);
  else
    print_plan(p, a.all);
}

}  // namespace

void add_plan_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("plan", "Show, without loading weights, what would run, how, where, in how much memory");
  command->footer(
      "Tensors that differ only in their layer stand on one line. Fails, with exit code 2, if the architecture is not\n"
      "implemented, or a tensor is missing, has another shape than the configuration says, is unknown, or has no "
      "kernel;\n"
      "then what the files hold is printed instead. The keys of the JSON are described in docs/commands.md.\n\n"
      "  nibble plan model.gguf --ctx 8192\n"
      "  nibble plan models/SmolLM2 --all --json");
  auto a = std::make_shared<PlanArguments>();
  add_model_arguments(*command, a->model);
  command->add_flag("--all", a->all, "A line for each tensor");
  command->add_flag("--json", a->json, "JSON instead of a table; always each tensor");
  command->callback([a] { plan(*a); });
}

}  // namespace nibble
