#include "plan_report.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "base/memory.h"
#include "program.h"

namespace nibble {

namespace {

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

}  // namespace

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

namespace {

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

}  // namespace

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

}  // namespace nibble
