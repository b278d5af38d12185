// What `nibble bench` measured, and its ways to say it: lines and a table, JSON (docs/commands.md has the keys), a plot.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace nibble {

struct LoadResult {
  int64_t bytes;  // that the files have of the weights
  double seconds, gbps, file_gbps, share;
};

struct DecodeResult {
  int64_t depth;
  double tok_s;  // of all sequences together
  double read_gbps, roof_gbps, roof_share;
  int64_t bytes_per_step, bytes_per_token;
};

struct PrefillResult {
  int64_t prompt_tokens;
  double tok_s;
};

// Phases of the same name and bytes, as the layers repeat them, added up; not those that no step needed.
struct PhaseSum {
  std::string name;
  int64_t count = 0, weight_bytes = 0;      // the most that a step reads
  int64_t read_bytes = 0, cache_bytes = 0;  // by all steps that were profiled
  double seconds = 0;
};

// In the order of their first.
std::vector<PhaseSum> sum_phases(const std::vector<Phase>& phases);

struct BenchReport {
  int64_t batch;  // sequences side by side
  const Engine& engine;
  const Backend& backend;
  std::optional<LoadResult> load;  // none: the weights are made up
  std::vector<PrefillResult> prefills;
  std::vector<DecodeResult> decodes;
  std::vector<PhaseSum> phases;
  int64_t profiled_steps;

  // Of a step, on average.
  double us(const PhaseSum& phase) const { return phase.seconds / static_cast<double>(profiled_steps) * 1e6; }
  int64_t weight_bytes(const PhaseSum& phase) const { return phase.read_bytes / profiled_steps; }
  int64_t cache_bytes(const PhaseSum& phase) const { return phase.cache_bytes / profiled_steps; }
  double bytes(const PhaseSum& phase) const { return static_cast<double>(weight_bytes(phase) + cache_bytes(phase)); }
  double gbps(const PhaseSum& phase) const { return bytes(phase) / std::max(us(phase), 1e-3) / 1e3; }
  // Of the mean roof; none if the phase reads neither weights nor cache.
  std::optional<double> roof_share(const PhaseSum& phase) const {
    if (bytes(phase) == 0) return {};
    double roofs = 0;
    for (const DecodeResult& r : decodes) roofs += r.roof_gbps;
    return gbps(phase) * static_cast<double>(decodes.size()) / roofs;
  }
  std::string cache_note() const;  // that a step's bytes fit the last-level cache; empty if they do not
};

void print_bench(const BenchReport& report);

void print_bench_json(const BenchReport& report);

// Bars of speeds, shares and times of phases.
std::string bench_svg(const BenchReport& report);

}  // namespace nibble
