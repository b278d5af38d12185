// bench_e2e_decode: what the choice of a route by M is worth for a whole model. The same weights, from the same token,
// greedily: decoded with tiles of 64×64 for every M (before), then with the chosen routes (after), in one run.
//
// The tokens of both must be equal. Every few tokens stand between two readings of the roof, which drifts. Bytes are
// those that a token needs, the same for both: packed weights, of experts only the chosen, and the cache.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "models/shapes.h"
#include "plot.h"
#include "program.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kFirstToken = 1;
constexpr int64_t kTokensPerRoof = 8;

// Tiles are slow: they decode no more tokens once they have had this long, but at least kFewestTokens.
constexpr double kSecondsOfTiles = 20;
constexpr int64_t kFewestTokens = 3;

struct Options {
  std::string shape = "glm-4.7-flash", experts = "nvfp4", rest = "fp4", plot;
  int64_t layers = 0, max_new_tokens = 64;
  int threads = 0;
  bool json = false;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The phases of all MoE layers: of each from the norm before its router up to what begins the next block.
struct MoePhases {
  int64_t num_layers = 0;
  std::vector<size_t> phases;
  std::vector<std::string> names;  // of the first layer

  double seconds(const std::vector<Phase>& all) const {
    double sum = 0;
    for (size_t i : phases) sum += all[i].seconds;
    return sum;
  }
};

MoePhases find_moe_phases(const std::vector<Phase>& all) {
  const auto begins_block = [&](size_t i) {
    return all[i].name.starts_with("rms_norm") || all[i].name.starts_with("select_logits");
  };
  MoePhases moe;
  for (size_t i = 0; i < all.size(); i++) {
    if (all[i].name.find("moe_gate_up") == std::string::npos) continue;
    size_t first = i, last = i + 1;
    while (first > 0 && !begins_block(first)) first--;
    while (last < all.size() && !begins_block(last)) last++;
    for (size_t p = first; p < last; p++) {
      moe.phases.push_back(p);
      if (moe.num_layers == 0) moe.names.push_back(all[p].name);
    }
    moe.num_layers++;
  }
  return moe;
}

// One of the two parts. Times and shares are medians over its tokens.
struct Part {
  std::vector<int32_t> tokens;
  MoePhases moe;
  double tok_s = 0, read_gbps = 0, roof_gbps = 0, roof_share = 0;
  std::optional<double> moe_layer_ms;
  int64_t bytes_per_token = 0;
};

Part decode(Engine& engine, LinearRoute route, int64_t max_new_tokens, double max_seconds) {
  Step step = engine.model().forward(1, LogitsFor::last_token);
  step.linear_route = route;
  const auto compiled = engine.compile(step);
  const auto cache = engine.backend().make_kv_cache(engine.kv_cache_shape());
  std::vector<float> logits(static_cast<size_t>(engine.model().config.vocab_size));
  const auto next_token = [&](int32_t token, int32_t pos) {
    const int32_t sequence = 0;
    compiled->run({{&token, 1}, {&pos, 1}, {&sequence, 1}}, *cache, logits);
    return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
  };

  Part part{.moe = find_moe_phases(compiled->phases())};
  next_token(kFirstToken, 0);  // warms up
  compiled->set_profiling(true);
  std::vector<double> seconds, moe_seconds, gbps, roofs, shares;
  const auto start = Clock::now();
  const auto is_done = [&] {
    const auto count = static_cast<int64_t>(part.tokens.size());
    return count == max_new_tokens || (count >= kFewestTokens && seconds_since(start) > max_seconds);
  };
  int32_t token = kFirstToken;
  double moe_before = 0, roof_before = engine.backend().measure_read_gbps();
  while (!is_done()) {
    for (int64_t i = 0; i < kTokensPerRoof && !is_done(); i++) {
      const auto pos = static_cast<int32_t>(part.tokens.size());
      const auto begin = Clock::now();
      token = next_token(token, pos);
      seconds.push_back(seconds_since(begin));
      part.tokens.push_back(token);
      part.bytes_per_token = compiled->weight_bytes() + cache->shape.bytes_read(pos + 1);
      gbps.push_back(static_cast<double>(part.bytes_per_token) / seconds.back() / 1e9);
      const double moe_now = part.moe.seconds(compiled->phases());
      moe_seconds.push_back(moe_now - moe_before);
      moe_before = moe_now;
    }
    const double roof_after = engine.backend().measure_read_gbps();
    roofs.push_back((roof_before + roof_after) / 2);
    for (size_t i = shares.size(); i < gbps.size(); i++) shares.push_back(gbps[i] / roofs.back());
    roof_before = roof_after;
  }
  if (!std::isfinite(logits[static_cast<size_t>(token)]))
    throw_run_error("the logits after token {} are not finite", part.tokens.size());
  part.tok_s = 1 / median(seconds);
  part.read_gbps = median(gbps);
  part.roof_gbps = median(roofs);
  part.roof_share = median(shares);
  if (part.moe.num_layers > 0) part.moe_layer_ms = median(moe_seconds) / static_cast<double>(part.moe.num_layers) * 1e3;
  return part;
}

// All that is reported.
struct Report {
  const Options& options;
  int64_t num_layers;
  std::string backend;
  double load_seconds;
  Part before, after;

  double speedup() const { return after.tok_s / before.tok_s; }
  double roof_gbps() const { return (before.roof_gbps + after.roof_gbps) / 2; }
  std::string layers() const { return fmt::format("{} layer{}", num_layers, num_layers == 1 ? "" : "s"); }
  std::string formats() const {
    const std::string fp4 = options.experts == "mxfp4" ? "MXFP4" : "NVFP4";
    if (options.rest == "fp4") return "all matrices " + fp4;
    return "experts " + fp4 + ", the rest " + (options.rest == "q8_0" ? "Q8_0" : "BF16");
  }
};

nlohmann::ordered_json part_json(const Part& part) {
  nlohmann::ordered_json json;
  json["tokens"] = part.tokens.size();
  json["decode_tok_s"] = part.tok_s;
  json["moe_layer_ms"] = nullptr;
  if (part.moe_layer_ms) json["moe_layer_ms"] = *part.moe_layer_ms;
  json["read_gbps"] = part.read_gbps;
  json["roof_gbps"] = part.roof_gbps;
  json["roof_share"] = part.roof_share;
  return json;
}

void print_report_json(const Report& r) {
  nlohmann::ordered_json json;
  json["shape"] = r.options.shape;
  json["layers"] = r.num_layers;
  json["moe_layers"] = r.after.moe.num_layers;
  json["experts"] = r.options.experts;
  json["rest"] = r.options.rest;
  json["backend_description"] = r.backend;
  json["bytes_per_token"] = r.after.bytes_per_token;
  json["roof_gbps"] = r.roof_gbps();
  json["speedup"] = r.speedup();
  json["before"] = part_json(r.before);
  json["after"] = part_json(r.after);
  json["moe_layer_phases"] = r.after.moe.names;
  json["load_seconds"] = r.load_seconds;
  print_json(json);
}

void print_row(const char* name, const Part& part) {
  fmt::print("{:<32}{:>8}{:>9.2f}{:>14}{:>8.2f}{:>7.1f}{:>6.0f} %\n", name, part.tokens.size(), part.tok_s,
             part.moe_layer_ms ? fmt::format("{:.2f} ms", *part.moe_layer_ms) : "none", part.read_gbps, part.roof_gbps,
             100 * part.roof_share);
}

void print_report(const Report& r) {
  fmt::print("{}, {}, {}; {}; {} a token\n\n", r.options.shape, r.layers(), r.formats(), r.backend,
             bytes_text(static_cast<double>(r.after.bytes_per_token)));
  fmt::print("{:<32}{:>8}{:>9}{:>14}{:>8}{:>7}{:>8}\n", "", "tokens", "tok/s", "MoE layer", "GB/s", "roof", "share");
  print_row("before: 64x64 tiles for every M", r.before);
  print_row("after: the routes chosen by M", r.after);
  fmt::print("\n{:.1f} times as many tokens a second, and the same tokens\n", r.speedup());
  if (r.after.moe.num_layers > 0) {
    std::string names;
    for (const std::string& name : r.after.moe.names) names += (names.empty() ? "" : "; ") + name;
    fmt::print("MoE layer: the mean of {}, each from its norm to its last expert ({})\n", r.after.moe.num_layers,
               names);
  }
}

std::string report_svg(const Report& r) {
  BarChart chart{.title = fmt::format("Decoding {}: {:.1f} times as fast", r.options.shape, r.speedup()),
                 .subtitles = {fmt::format("{} layers, random weights, {}; {} read for a token", r.num_layers,
                                           r.formats(), bytes_text(static_cast<double>(r.after.bytes_per_token))),
                               fmt::format("{}; {}", machine_and_date(), r.backend)}};
  const auto add = [&](BarPanel panel, double before, double after) {
    panel.bars = {{"64×64 tiles for every M", before}, {"route chosen by M", after}};
    panel.last_stands_out = true;
    chart.panels.push_back(std::move(panel));
  };
  add({.title = "Decode speed", .unit = "tok/s", .note = "more is better"}, r.before.tok_s, r.after.tok_s);
  if (r.before.moe_layer_ms && r.after.moe_layer_ms)
    add({.title = "One MoE layer", .unit = "ms", .note = "less is better"}, *r.before.moe_layer_ms,
        *r.after.moe_layer_ms);
  add({.title = "Weights and cache read",
       .unit = "GB/s",
       .note = "more is better",
       .limit = r.roof_gbps(),
       .limit_name = "measured roof"},
      r.before.read_gbps, r.after.read_gbps);
  return bar_chart_svg(chart);
}

void run(const Options& o) {
  const std::unique_ptr<OutputFile> plot = open_plot(o.plot);
  const FormatId fp4 = o.experts == "mxfp4" ? FormatId::mxfp4 : FormatId::nvfp4;
  const RandomFormats formats{fp4, o.rest == "q8_0" ? FormatId::q8_0 : o.rest == "bf16" ? FormatId::bf16 : fp4};
  ModelFiles files = random_model(o.shape, o.layers, formats);
  const int64_t positions = files.model->config.max_position_embeddings;
  if (o.max_new_tokens > positions)
    throw_input_error("--max-new-tokens {}: {} has {} positions", o.max_new_tokens, o.shape, positions);
  const auto start = Clock::now();
  Engine engine(std::move(files), {.backend = {.name = "cpu", .num_threads = o.threads},
                                   .max_len = o.max_new_tokens,
                                   .prefill_block = 1,
                                   .measures_roof = true,
                                   .progress = progress_bar("making weights")});
  const double load_seconds = seconds_since(start);
  engine.backend().measure_read_gbps();  // makes its buffer

  Part before = decode(engine, LinearRoute::always_tiles, o.max_new_tokens, kSecondsOfTiles);
  Part after = decode(engine, LinearRoute::by_tokens, o.max_new_tokens, std::numeric_limits<double>::infinity());
  const auto differ = std::ranges::mismatch(before.tokens, after.tokens).in1;
  if (differ != before.tokens.end())
    throw_run_error("the two routes give other tokens, first at {} of {}; one of them has a fault",
                    differ - before.tokens.begin(), before.tokens.size());
  const Report report{.options = o,
                      .num_layers = engine.model().config.num_layers,
                      .backend = engine.backend().description(),
                      .load_seconds = load_seconds,
                      .before = std::move(before),
                      .after = std::move(after)};
  (o.json ? print_report_json : print_report)(report);
  if (plot) write_plot(*plot, report_svg(report));
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  nibble::Options options;
  CLI::App app{
      "Decodes one model twice in one run, with random weights of a published shape: with 64x64 tiles for every\n"
      "number of tokens (before), and with the routes that are chosen by it (after).",
      "bench_e2e_decode"};
  std::string shapes;
  for (std::string_view name : nibble::shape_names()) shapes += (shapes.empty() ? "" : ", ") + std::string(name);
  app.add_option("--max-new-tokens", options.max_new_tokens,
                 "Tokens decoded after; before stops earlier if it has taken 20 s")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--shape", options.shape, "The published shape: " + shapes)->capture_default_str();
  app.add_option("--layers", options.layers, "Fewer layers; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{4096}))
      ->capture_default_str();
  app.add_option("--experts", options.experts, "The FP4 format, nvfp4 or mxfp4")
      ->check(CLI::IsMember({"nvfp4", "mxfp4"}))
      ->capture_default_str();
  app.add_option("--rest", options.rest, "Matrices outside experts in fp4, q8_0 or bf16")
      ->check(CLI::IsMember({"fp4", "q8_0", "bf16"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads. Default, as with 0: one for each processor")
      ->envname("NIBBLE_THREADS")
      ->check(CLI::Range(0, 1024));
  app.add_flag("--json", options.json, "One JSON object on stdout");
  app.add_option("--plot", options.plot, "Also draw a bar chart, FILE.svg")->check(nibble::not_empty);
  app.footer(
      "Every figure is a median over tokens. GB/s counts the bytes that a token needs, the same for both; share is of\n"
      "the read bandwidth, measured every few tokens. The whole of glm-4.7-flash takes 17 GB of memory.\n\n"
      "  bench_e2e_decode --max-new-tokens 64 --plot e2e.svg\n"
      "  bench_e2e_decode --layers 4 --json");
  app.callback([&] { nibble::run(options); });
  return nibble::run_program(app, argc, argv);
}
