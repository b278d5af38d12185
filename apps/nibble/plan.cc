// nibble plan: what would run, how, and where, without loading a weight.
#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/naming.h"
#include "commands.h"
#include "models/architectures.h"
#include "plan_report.h"
#include "weights/importer.h"

namespace nibble {

namespace {

struct PlanArguments {
  ModelArguments model;
  bool all = false, json = false;
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
