// bench_gemm_fp4: how fast FP4 matrices are multiplied, as a share of what the memory could deliver in the same moment.
//
// Each measurement rotates over copies of the matrix that together are larger than any cache, and each run of it stands
// between two readings of the roof, since the bandwidth of a shared machine drifts within seconds.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "backends/cpu/roof.h"
#include "backends/gemm_cases.h"
#include "backends/random_weights.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/topology.h"
#include "ops/choose_gemm.h"
#include "plot.h"
#include "program.h"

namespace nibble {
namespace {

constexpr int64_t kRoofPiece = int64_t{128} << 20;  // 4 to 8 ms a reading

struct Options {
  std::vector<std::string> shapes;
  std::vector<GemmShape> gemm_shapes;  // what shapes say
  std::vector<int64_t> tokens;
  std::vector<std::string> formats, isas;
  std::vector<const CpuKernels*> kernels;  // of isas
  std::vector<int64_t> sizes_mb = {64};
  int64_t group_size = 64;
  int activation_bits = kActivationBits;
  std::string plot;
  int threads = 0;
  int64_t memory_mb = 1024;
  double seconds = 0.3;
  bool packed = false, json = false;
};

// The median of several runs of one call; the share is the median of each run's own.
struct Speed {
  double us = 0, gbps = 0, roof_gbps = 0, share = 0;
};

// A point of the plot.
struct Sample {
  std::string series;
  double mb;
  int64_t M;
  double share;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : pool(options.threads > 0 ? options.threads : default_num_threads()),
        options_(options),
        roof_(pool, read_roof_bytes(read_topology().last_level_cache_bytes)) {}

  // call(i) is the i-th call, reading `bytes`. At least 3 runs, each of at least one call.
  Speed measure(int64_t bytes, const std::function<void(int64_t)>& call) {
    using Clock = std::chrono::steady_clock;
    int64_t i = 0;
    const auto time_of = [&](int64_t count) {
      const auto start = Clock::now();
      for (int64_t j = 0; j < count; j++) call(i++);
      return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(count);
    };
    const double first = time_of(1);
    const auto calls_per_run = static_cast<int64_t>(std::max(1.0, options_.seconds / 10 / first));
    std::vector<double> us, gbps, roofs, shares;
    const auto start = Clock::now();
    double roof_before = roof_.measure_gbps(pool, kRoofPiece);
    while (us.size() < 3 || std::chrono::duration<double>(Clock::now() - start).count() < options_.seconds) {
      const double seconds = time_of(calls_per_run);
      const double roof_after = roof_.measure_gbps(pool, kRoofPiece);
      us.push_back(seconds * 1e6);
      gbps.push_back(static_cast<double>(bytes) / seconds / 1e9);
      roofs.push_back((roof_before + roof_after) / 2);
      shares.push_back(gbps.back() / roofs.back());
      roof_before = roof_after;
    }
    return {median(us), median(gbps), median(roofs), median(shares)};
  }

  WorkerPool pool;
  std::vector<Sample> samples;

 private:
  const Options& options_;
  ReadRoof roof_;
};

// The kernels that --isa names; without it the best, or for the engine's linears all.
std::vector<const CpuKernels*> find_kernels(const Options& options) {
  const auto all = supported_cpu_kernels();
  if (options.isas.empty() && options.packed) return {all.begin(), all.end()};
  if (options.isas.empty()) return {&cpu_kernels()};
  std::vector<const CpuKernels*> chosen;
  for (const std::string& isa : options.isas) {
    std::string names;
    const size_t before = chosen.size();
    for (const CpuKernels* kernels : all) {
      if (kernels->name == isa) chosen.push_back(kernels);
      names += (names.empty() ? "" : ", ") + std::string(kernels->name);
    }
    if (chosen.size() == before) throw_input_error("--isa '{}': this machine runs {}", isa, names);
  }
  return chosen;
}

GemmShape parse_shape(const std::string& text, int64_t group_size) {
  long long N = 0, K = 0;
  char end = 0;
  constexpr long long kMost = 1 << 24;
  if (std::sscanf(text.c_str(), "%lldx%lld%c", &N, &K, &end) != 2 || N <= 0 || N > kMost || K <= 0 || K > kMost ||
      K % 8 != 0)
    throw_input_error("--shape '{}': NxK expected, such as 4096x4096, up to {} each, with K a multiple of 8", text,
                      kMost);
  return {N, K, group_size};
}

// Throws InputError unless there is memory for the matrix, and for copies of it.
void check_memory(const Options& options, int64_t matrix_bytes) {
  const int64_t needed = matrix_bytes + std::max(matrix_bytes, options.memory_mb << 20);
  const auto available = static_cast<int64_t>(available_memory_bytes());
  if (available > 0 && needed > available)
    throw_input_error(
        "{} MB needed for a matrix of {} MB and copies of it, {} MB of memory available; a smaller one, or "
        "less --memory, would fit",
        needed >> 20, matrix_bytes >> 20, available >> 20);
}

// As many copies of B and its scales as fill `memory_mb`, one after the other.
struct Copies {
  Copies(const GemmOperands& operands, int64_t memory_mb)
      : words(operands.B.size()),
        num_scales(operands.scales.size()),
        count(std::max<int64_t>(1, (memory_mb << 20) / static_cast<int64_t>(words * 4 + num_scales * 2))),
        B(static_cast<size_t>(count) * words * 4),
        scales(static_cast<size_t>(count) * num_scales * 2) {
    for (int64_t i = 0; i < count; i++) {
      std::memcpy(B.data() + static_cast<size_t>(i) * words * 4, operands.B.data(), words * 4);
      std::memcpy(scales.data() + static_cast<size_t>(i) * num_scales * 2, operands.scales.data(), num_scales * 2);
    }
  }
  GemmFp4 at(GemmFp4 gemm, int64_t i) const {
    gemm.B = B.as<uint32_t>() + static_cast<size_t>(i % count) * words;
    gemm.scales = scales.as<Half>() + static_cast<size_t>(i % count) * num_scales;
    return gemm;
  }
  int64_t bytes() const { return static_cast<int64_t>(words * 4 + num_scales * 2); }
  size_t words, num_scales;
  int64_t count;
  Buffer B, scales;
};

void bench_dispatch(const Options& options, Bench& bench, nlohmann::ordered_json& results) {
  for (const GemmShape& shape : options.gemm_shapes) {
    const GemmOperands base(shape, 1, 1);
    const Copies copies(base, options.memory_mb);
    if (!options.json)
      fmt::print("\nN {} K {} group {}: {:.1f} MB, {} copies\n{:>4}  {:<22}{:<13}{:>12}{:>9}{:>9}{:>7}  {}\n", shape.N,
                 shape.K, shape.group_size, static_cast<double>(copies.bytes()) / 1e6, copies.count, "M", "route",
                 "kernels", "us", "GB/s", "roof", "share", "against tiles");
    for (int64_t M : options.tokens) {
      GemmOperands operands({.N = 1, .K = shape.K, .group_size = shape.group_size}, M, 2);  // its A
      std::vector<Half> C(static_cast<size_t>(M * shape.N));
      GemmFp4 gemm = base.gemm();
      gemm.M = M;
      gemm.A = operands.A.data();
      gemm.C_half = C.data();
      gemm.parallel = on_pool(bench.pool);
      const GemmRoute chosen = choose_gemm_fp4(M, shape.N, shape.K);
      double tiles_us = 0;
      for (const CpuKernels* kernels : options.kernels)
        for (GemmRoute route :
             {GemmRoute::marlin_gemm_fp4, GemmRoute::batched_gemv_fp4, GemmRoute::decode_gemv_fp4_wide}) {
          if (route == GemmRoute::decode_gemv_fp4_wide && M > 8) continue;  // a token at a time: of interest for few
          const Speed s = bench.measure(copies.bytes(), [&](int64_t i) {
            const GemmStatus status = gemm_fp4_with(*kernels, copies.at(gemm, i), route);
            if (status != GemmStatus::ok) throw_input_error("{}", gemm_status_text(status));
          });
          if (route == GemmRoute::marlin_gemm_fp4) tiles_us = s.us;
          if (!options.json)
            fmt::print("{:>4}  {:<22}{:<13}{:>12.1f}{:>9.2f}{:>9.2f}{:>6.0f}%  {:.2f} x{}\n", M, gemm_route_name(route),
                       kernels->name, s.us, s.gbps, s.roof_gbps, 100 * s.share, tiles_us / s.us,
                       route == chosen ? "  <- dispatch" : "");
          std::fflush(stdout);
          if (route == chosen)
            bench.samples.push_back(
                {fmt::format("dispatch, {}", kernels->name), static_cast<double>(copies.bytes()) / 1e6, M, s.share});
          results.push_back({{"N", shape.N},
                             {"K", shape.K},
                             {"group_size", shape.group_size},
                             {"M", M},
                             {"route", gemm_route_name(route)},
                             {"kernels", kernels->name},
                             {"chosen", route == chosen},
                             {"us", s.us},
                             {"gbps", s.gbps},
                             {"roof_gbps", s.roof_gbps},
                             {"roof_share", s.share},
                             {"tiles_us", tiles_us},
                             {"speedup_over_tiles", tiles_us / s.us}});
        }
    }
  }
}

// One format at one size: every instruction set and number of tokens.
void bench_packed_matrix(const Options& options, FormatId format, int64_t size_mb, Bench& bench,
                         nlohmann::ordered_json& results) {
  constexpr int64_t K = 4096;
  const std::string name(format_name(format));
  const int64_t N =
      std::max<int64_t>(1, (size_mb << 20) / (32 * code_bytes(format, K) + scale_bytes(format, 32, K))) * 32;
  const CanonicalWeight weight = random_weight(format, 1, N, K, 1, 1);
  std::vector<std::unique_ptr<PackedMatrix>> copies;
  do {
    copies.push_back(std::make_unique<PackedMatrix>(weight, &bench.pool));
  } while (static_cast<int64_t>(copies.size() + 1) * copies[0]->bytes <= options.memory_mb << 20);
  for (const CpuKernels* kernels : options.kernels) {
    for (int64_t M : options.tokens) {
      const auto x = random_activations(M * K, 1);
      std::vector<float> out(static_cast<size_t>(M * N));
      const Buffer storage(static_cast<size_t>(activations_bytes(M, K)));
      const Activations activations = {.M = M,
                                       .K = K,
                                       .x = x.data(),
                                       .x_stride = K,
                                       .bits = options.activation_bits,
                                       .groups = storage.as<ActivationGroup>()};
      const Speed s = bench.measure(copies[0]->bytes, [&](int64_t i) {
        const PackedMatrix& w = *copies[static_cast<size_t>(i) % copies.size()];
        bench.pool.run([&](int worker) {
          const int num_workers = bench.pool.num_threads();
          const Range groups = worker_range(M * activation_groups(K), 1, worker, num_workers);
          kernels->prepare(activations, groups.first, groups.last);
          bench.pool.barrier();
          const Range rows = worker_range(N, kBlockRows, worker, num_workers);
          kernels->linear({.w = &w,
                           .first_row = rows.first,
                           .last_row = rows.last,
                           .x = &activations,
                           .num_tokens = M,
                           .out = out.data(),
                           .out_stride = N});
        });
      });
      const double mb = static_cast<double>(copies[0]->bytes) / 1e6;
      if (!options.json)
        fmt::print("{:<14}{:<13}{:>7.1f}{:>4}{:>12.1f}{:>9.2f}{:>9.2f}{:>6.0f}%\n", name, kernels->name, mb, M, s.us,
                   s.gbps, s.roof_gbps, 100 * s.share);
      std::fflush(stdout);
      bench.samples.push_back({fmt::format("{}, {}", name, kernels->name), static_cast<double>(size_mb), M, s.share});
      results.push_back({{"format", name},
                         {"kernels", kernels->name},
                         {"kernel", linear_kernel_name(choose_linear(M))},
                         {"activation_bits", options.activation_bits},
                         {"N", N},
                         {"K", K},
                         {"M", M},
                         {"us", s.us},
                         {"gbps", s.gbps},
                         {"roof_gbps", s.roof_gbps},
                         {"roof_share", s.share}});
    }
  }
}

void bench_packed(const Options& options, Bench& bench, nlohmann::ordered_json& results) {
  if (!options.json)
    fmt::print("K 4096, activations in {} bits\n{:<14}{:<13}{:>7}{:>4}{:>12}{:>9}{:>9}{:>7}\n", options.activation_bits,
               "format", "kernels", "MB", "M", "us", "GB/s", "roof", "share");
  for (FormatId format : kAllFormatIds) {
    const std::string_view name = format_name(format);
    if (!options.formats.empty() && std::count(options.formats.begin(), options.formats.end(), name) == 0) continue;
    for (int64_t size_mb : options.sizes_mb) bench_packed_matrix(options, format, size_mb, bench, results);
  }
}

// Share of the roof over the size of the matrix, for the fewest tokens, and over the tokens, for the largest matrix.
std::string samples_svg(const Options& options, const std::vector<Sample>& samples) {
  LineChart chart{.title = "How near FP4 matrices come to the read bandwidth",
                  .subtitles = {fmt::format("{}, {} threads, activations in {} bits", machine_and_date(),
                                            options.threads, options.activation_bits)},
                  .limit_name = "measured roof"};
  int64_t fewest = std::numeric_limits<int64_t>::max();
  double largest = 0;
  for (const Sample& sample : samples) {
    if (std::ranges::find(chart.series, sample.series) == chart.series.end()) chart.series.push_back(sample.series);
    fewest = std::min(fewest, sample.M);
    largest = std::max(largest, sample.mb);
  }
  const auto add_panel = [&](std::string title, std::string x_title, const auto& x_of) {
    std::map<double, std::map<std::string, double>> shares;
    for (const Sample& sample : samples)
      if (const double x = x_of(sample); x > 0) shares[x][sample.series] = 100 * sample.share;
    if (shares.size() < 2) return;
    LinePanel panel{.title = std::move(title), .x_title = std::move(x_title)};
    panel.shares.resize(chart.series.size());
    for (const auto& [x, by_series] : shares) {
      panel.x.push_back(x);
      for (size_t i = 0; i < chart.series.size(); i++) {
        const auto found = by_series.find(chart.series[i]);
        panel.shares[i].push_back(found == by_series.end() ? std::numeric_limits<double>::quiet_NaN() : found->second);
      }
    }
    chart.panels.push_back(std::move(panel));
  };
  add_panel(fmt::format("M = {}", fewest), "MB of the matrix, codes and scales",
            [&](const Sample& s) { return s.M == fewest ? s.mb : 0; });
  add_panel(fmt::format("{:.4g} MB", largest), "M, tokens",
            [&](const Sample& s) { return s.mb == largest ? static_cast<double>(s.M) : 0; });
  return line_chart_svg(chart);
}

void run(Options options) {
  for (const std::string& name : options.formats)
    if (std::none_of(std::begin(kAllFormatIds), std::end(kAllFormatIds),
                     [&](FormatId id) { return format_name(id) == name; }))
      throw_input_error("--format '{}' is not known; see `--packed` without it for the list", name);
  if (options.tokens.empty()) {
    if (options.packed) {
      options.tokens = {1, 2, 4, 8};
    } else {
      options.tokens.assign(std::begin(kGemmTokens), std::end(kGemmTokens));
    }
  }

  options.kernels = find_kernels(options);
  for (const std::string& text : options.shapes) options.gemm_shapes.push_back(parse_shape(text, options.group_size));
  if (options.shapes.empty()) options.gemm_shapes.assign(std::begin(kGemmShapes), std::end(kGemmShapes));
  for (const GemmShape& s : options.gemm_shapes)
    if (!options.packed) check_memory(options, s.N * (s.K / 2 + (s.K + s.group_size - 1) / s.group_size * 2));
  for (const int64_t size_mb : options.sizes_mb)
    if (options.packed) check_memory(options, size_mb << 20);
  const std::unique_ptr<OutputFile> plot = open_plot(options.plot);
  const std::string_view kernels = cpu_kernels().name;
  Bench bench(options);
  options.threads = bench.pool.num_threads();
  if (!options.json) fmt::print("{} threads, {} kernels\n", bench.pool.num_threads(), kernels);
  auto results = nlohmann::ordered_json::array();
  (options.packed ? bench_packed : bench_dispatch)(options, bench, results);
  if (plot) write_plot(*plot, samples_svg(options, bench.samples));
  if (options.json) print_json({{"threads", bench.pool.num_threads()}, {"kernels", kernels}, {"results", results}});
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  nibble::Options options;
  CLI::App app{
      "Measures dispatch_gemm_fp4: each of its routes at each shape and number of tokens, the route that it\n"
      "chooses, and how much faster that is than 64x64 tiles for every M, which is what it replaces.\n"
      "GB/s counts the codes and scales of the matrix; share is of the read bandwidth of this machine,\n"
      "measured before and after each run.",
      "bench_gemm_fp4"};
  app.add_option("--shape", options.shapes, "NxK, for instance 4096x4096; may be repeated (default: a list of five)");
  app.add_option("--group-size", options.group_size, "k that share a scale, of the shapes given with --shape")
      ->check(CLI::IsMember({"32", "64", "128"}))
      ->capture_default_str();
  nibble::add_list_option(app, "-M,--tokens", options.tokens,
                          "numbers of tokens (default: 1 to 512 in powers of two; --packed: 1, 2, 4, 8)",
                          CLI::Range(int64_t{1}, int64_t{1} << 16));
  app.add_flag("--packed", options.packed,
               "measure the engine's own linears instead: every format and instruction set");
  nibble::add_list_option(app, "--format", options.formats,
                          "with --packed: only these formats, for instance MXFP4,Q8_0");
  nibble::add_list_option(app, "--size", options.sizes_mb, "with --packed: MB of the matrix",
                          CLI::Range(int64_t{1}, int64_t{1} << 14));
  app.add_option("--activations", options.activation_bits, "with --packed: bits that activations are rounded to")
      ->check(CLI::IsMember({"15", "8"}))
      ->capture_default_str();
  nibble::add_list_option(app, "--isa", options.isas,
                          "kernels, for instance avx512,avx2 (default: the best; --packed: all of this machine)");
  app.add_option("--plot", options.plot, "also draw the shares over sizes and tokens, FILE.svg")
      ->check(nibble::not_empty);
  app.add_option("--threads", options.threads, "threads (default: the processors this process may use)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--memory", options.memory_mb,
                 "MB of copies of the matrix to rotate over; more than the largest cache")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "time for each measurement; the median of its runs is reported")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  app.add_flag("--json", options.json, "one JSON object on stdout");
  app.callback([&] { nibble::run(options); });
  return nibble::run_program(app, argc, argv);
}
