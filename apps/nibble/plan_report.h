// What `nibble plan` found, and its two ways to say it: a table, and JSON (docs/commands.md has the keys).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/packed_cache.h"
#include "file_tensors.h"

namespace nibble {

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
  std::optional<PackedCache> packed_cache;

  double roof_tok_s() const { return roof_gbps * 1e9 / static_cast<double>(step_bytes); }
};

// `all`: a line for each weight; otherwise those that differ only in their layer stand on one.
void print_plan(const Plan& plan, bool all);

void print_plan_json(const Plan& plan);

}  // namespace nibble
