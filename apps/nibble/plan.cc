// nibble plan: what would run, how, and where, without loading a weight.
#include <algorithm>
#include <cstdio>
#include <map>

#include "base/memory.h"
#include "commands.h"

namespace nibble {

namespace {

struct PlanArguments {
  ModelArguments model;
  bool all = false, json = false;
};

// One line of the table: tensors that differ in nothing but the layer's number.
struct PlanRow {
  std::string name, source, shape, layout, kernel;
  std::string_view packed_format;
  int64_t count = 0, bytes = 0;
};

// "model.layers.3.mlp.up_proj" → "model.layers.*.mlp.up_proj".
std::string without_layer(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return name;
  return std::string(kPrefix) + "*" + name.substr(std::min(name.size(), name.find('.', kPrefix.size())));
}

PlanRow row_of(const WeightEntry& entry, const Backend& backend) {
  if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
    const MatrixInfo& info = matrix->info;
    const PackPlan pack = backend.plan_pack(info.format, info.E, info.N, info.K);
    const std::string shape =
        info.E == 1 ? fmt::format("[{}, {}]", info.N, info.K) : fmt::format("[{}, {}, {}]", info.E, info.N, info.K);
    return {entry.name(), info.source, shape, pack.layout, pack.kernel, format_name(pack.format), 1, pack.bytes};
  }
  const auto& vector = std::get<VectorRequest>(entry.what);
  const std::string shape =
      vector.is_experts ? fmt::format("[{}, {}]", vector.E, vector.size) : fmt::format("[{}]", vector.size);
  return {entry.name(), "vector", shape, "as it is", "-", "F32", 1, entry.bytes()};
}

std::vector<PlanRow> plan_rows(const WeightTable& table, const Backend& backend, bool all) {
  std::vector<PlanRow> rows;
  std::map<std::string, size_t> place;
  for (const WeightEntry& entry : table.entries()) {
    PlanRow row = row_of(entry, backend);
    if (!all) row.name = without_layer(row.name);
    const std::string key = row.name + '\n' + row.source + '\n' + row.shape;
    const auto [it, is_new] = place.try_emplace(key, rows.size());
    if (is_new) {
      rows.push_back(std::move(row));
    } else {
      rows[it->second].count++;
      rows[it->second].bytes += row.bytes;
    }
  }
  return rows;
}

// Bytes of packed weights that one step reads: each linear's matrix, of experts those that are chosen.
int64_t step_weight_bytes(const Model& model, const Backend& backend) {
  int64_t bytes = 0;
  const Step step = model.forward(1, LogitsFor::last_token);
  for (const Op& op : step.ops)
    bytes += weight_bytes_read(op, step.M, [&](WeightId id) {
      const MatrixInfo& info =
          std::get<MatrixEntry>(model.weights.entries()[static_cast<size_t>(id.index)].what).info;
      return MatrixSize{info.E, backend.plan_pack(info.format, info.E, info.N, info.K).bytes};
    });
  return bytes;
}

void plan(const PlanArguments& a) {
  const ModelFiles files = open_model(a.model.path);
  const Model& model = *files.model;
  const auto backend = make_backend(backend_options(a.model));
  const KvCacheShape cache{.layers = model.kv_layers,
                           .max_len = std::min(a.model.ctx, model.config.max_position_embeddings),
                           .type = kv_cache_type(a.model).value_or(backend->default_kv_cache_type())};
  const MemoryPlan memory = plan_memory(model, *backend, cache, EngineOptions{}.prefill_block);
  const std::vector<PlanRow> rows = plan_rows(model.weights, *backend, a.all || a.json);
  const std::vector<std::string> unused = model.weights.source().unused_tensors();
  const int64_t step_bytes = step_weight_bytes(model, *backend);
  backend->measure_read_gbps();
  const double roof = backend->measure_read_gbps();
  const double tok_s = roof * 1e9 / static_cast<double>(step_bytes);

  if (a.json) {
    nlohmann::ordered_json json;
    json["architecture"] = model.config.architecture;
    json["backend"] = backend->name();
    json["backend_description"] = backend->description();
    json["tensors"] = nlohmann::ordered_json::array();
    for (const PlanRow& row : rows)
      json["tensors"].push_back({{"name", row.name},
                                 {"source", row.source},
                                 {"shape", row.shape},
                                 {"format", row.packed_format},
                                 {"layout", row.layout},
                                 {"kernel", row.kernel},
                                 {"device", backend->name()},
                                 {"bytes", row.bytes}});
    json["unused_tensors"] = unused;
    json["weights_bytes"] = memory.weights_bytes;
    json["kv_cache_bytes"] = memory.kv_cache_bytes;
    json["kv_cache_type"] = kv_cache_type_name(cache.type);
    json["ctx"] = cache.max_len;
    json["scratch_bytes"] = memory.scratch_bytes;
    json["available_bytes"] = available_memory_bytes();
    json["bytes_per_token"] = step_bytes;
    json["kv_bytes_per_position"] = cache.bytes_per_token();
    json["roof_gbps"] = roof;
    json["roof_tok_s"] = tok_s;
    print_json(json);
    return;
  }

  const DecoderConfig& c = model.config;
  fmt::print("{}: {}, {} layers, hidden {}, {}/{} heads × {}, vocabulary {}\n", a.model.path, c.architecture,
             c.num_layers, c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.vocab_size);
  fmt::print("backend {} ({})\n\n", backend->name(), backend->description());
  size_t name_width = 6, source_width = 11, shape_width = 5, kernel_width = 6;
  for (const PlanRow& row : rows) {
    name_width = std::max(name_width, row.name.size());
    source_width = std::max(source_width, row.source.size());
    shape_width = std::max(shape_width, row.shape.size());
    kernel_width = std::max(kernel_width, row.kernel.size());
  }
  fmt::print("{:>5}  {:<{}}  {:<{}}  {:<{}}  {:<12}  {:<{}}  {:<6}  {:>10}\n", "count", "tensor", name_width,
             "in the file", source_width, "shape", shape_width, "packed as", "kernel", kernel_width, "device", "bytes");
  for (const PlanRow& row : rows)
    fmt::print("{:>5}  {:<{}}  {:<{}}  {:<{}}  {:<12}  {:<{}}  {:<6}  {:>10}\n", row.count, row.name, name_width,
               row.source, source_width, row.shape, shape_width, row.packed_format, row.kernel, kernel_width,
               backend->name(), bytes_text(static_cast<double>(row.bytes)));
  if (!unused.empty()) {
    fmt::print("\nnot used, {} tensors:\n", unused.size());
    const size_t shown = a.all ? unused.size() : std::min<size_t>(unused.size(), 4);
    for (size_t i = 0; i < shown; i++) fmt::print("       {}\n", unused[i]);
    if (shown < unused.size()) fmt::print("       … ({} more, --all shows them)\n", unused.size() - shown);
  }
  const auto text = [](int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  fmt::print("\nmemory     {} of weights, {} of KV cache ({} × {} positions), {} of scratch; {} available\n",
             text(memory.weights_bytes), text(memory.kv_cache_bytes), kv_cache_type_name(cache.type), cache.max_len,
             text(memory.scratch_bytes), bytes_text(static_cast<double>(available_memory_bytes())));
  fmt::print("a token    reads {} of weights, and {} for each position before it\n", text(step_bytes),
             text(cache.bytes_per_token()));
  fmt::print("the roof   {:.1f} GB/s measured now: at most {:.1f} tok/s\n", roof, tok_s);
}

}  // namespace

void add_plan_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("plan", "Show, without loading weights, what would run, how, where, in how much memory");
  command->footer(
      "Tensors that differ only in their layer stand on one line. Fails, with exit code 2, if a tensor is missing, "
      "has\n"
      "another shape than the configuration says, is unknown, or has no kernel.\n\n"
      "  nibble plan model.gguf --ctx 8192\n"
      "  nibble plan models/SmolLM2 --all --json");
  auto a = std::make_shared<PlanArguments>();
  add_model_arguments(*command, a->model);
  command->add_flag("--all", a->all, "A line for each tensor");
  command->add_flag("--json", a->json, "JSON instead of a table; always each tensor");
  command->callback([a] { plan(*a); });
}

}  // namespace nibble
