// nibble bench: decode and prefill speed, with the roof measured around every run.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/file_bandwidth.h"
#include "bench_report.h"
#include "commands.h"
#include "engine/batch.h"
#include "engine/token_stream.h"
#include "models/shapes.h"
#include "plot.h"

namespace nibble {

namespace {

using Clock = std::chrono::steady_clock;

struct BenchArguments {
  ModelArguments model;
  std::string shape, experts = "nvfp4", rest = "fp4", plot;
  int64_t layers = 0;
  std::vector<int64_t> prompts = {128}, depths = {0};
  int64_t new_tokens = 64, batch = 1;
  int runs = 5, loads = 1;
  bool json = false;
};

// Any tokens will do: dense models take the same time for all, and those with experts are told what they read.
std::vector<int32_t> some_tokens(int64_t count, int64_t vocab_size, uint64_t seed = 1) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  uint64_t state = seed;
  for (int32_t& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

double seconds_of(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The sequences that are measured: one is a session, decoded as `nibble run` does it, several are a batch.
class Sequences {
 public:
  Sequences(Engine& engine, int64_t count)
      : vocab_size_(engine.model().config.vocab_size), block_(engine.options().prefill_block), numbers_(count) {
    std::iota(numbers_.begin(), numbers_.end(), 0);
    if (count == 1)
      session_.emplace(engine);
    else
      batch_.emplace(engine);
  }
  int64_t count() const { return static_cast<int64_t>(numbers_.size()); }
  CompiledStep& decode_step() { return session_ ? session_->decode_step() : batch_->step(count()); }

  void prefill_first(std::span<const int32_t> prompt) {
    if (session_) {
      session_->truncate(0);
      session_->prefill(prompt);
    } else {
      batch_->truncate(0);
      batch_->prefill(prompt, 0);
    }
  }
  // Leaves `depth` positions of each: a prompt of its own of up to a block, over and over.
  void fill(int64_t depth) {
    if (session_) session_->truncate(0);
    if (batch_) batch_->truncate(0);
    if (depth == 0) return;
    for (const int32_t sequence : numbers_) {
      const std::vector<int32_t> prompt =
          some_tokens(std::min(depth, block_), vocab_size_, static_cast<uint64_t>(sequence) + 1);
      if (batch_) {
        batch_->prefill(prompt, sequence);
        batch_->repeat(sequence, depth);
      } else {
        session_->prefill(prompt);
        session_->repeat(depth);
      }
    }
  }
  // Goes back to what fill left.
  void go_back(int64_t depth) {
    if (batch_) return batch_->truncate(depth);
    session_->truncate(depth);
    if (session_->length() < depth) fill(depth);  // layers with a window have forgotten what was there
  }

  // `num_tokens` steps; returns the bytes that they read.
  double decode(int64_t num_tokens) {
    const std::vector<int32_t> tokens = some_tokens(num_tokens * count(), vocab_size_);
    double bytes = 0;
    if (batch_) {
      for (auto left = std::span<const int32_t>(tokens); !left.empty();) {
        size_t num_steps = run_ahead(left);
        if (num_steps == 0) {
          batch_->extend(left.first(numbers_.size()), numbers_);
          num_steps = 1;
        }
        bytes += static_cast<double>(num_steps) * static_cast<double>(batch_->bytes_per_step());
        left = left.subspan(num_steps * numbers_.size());
      }
    } else if (chooses_tokens()) {
      Sampler sampler({.temperature = kDrawn.temperature, .top_k = kDrawn.top_k, .seed = 1}, vocab_size_);
      TokenStream stream(*session_, sampler);
      int32_t token = tokens[0];
      for (int64_t i = 0; i < num_tokens; i++) {
        token = stream.next(token, num_tokens - i);
        bytes += static_cast<double>(session_->bytes_per_token(stream.length()));
      }
    } else {
      for (const int32_t token : tokens) {
        session_->decode(token);
        bytes += static_cast<double>(session_->bytes_per_token());
      }
    }
    return bytes;
  }

 private:
  // Not the best token, which would soon be the same ones again, and read the same experts.
  static constexpr TokenChoice kDrawn = {.temperature = 1, .top_k = 40};

  // Whether the backend decodes several tokens without the host between them.
  bool chooses_tokens() const { return session_->max_ahead() > 0; }

  // The steps that one command buffer takes at once, the first with tokens of `left`, which has some for each step; 0 if the
  // backend takes one after the other.
  size_t run_ahead(std::span<const int32_t> left) {
    const size_t M = numbers_.size();
    const auto count = std::min(static_cast<size_t>(batch_->max_ahead(numbers_)), left.size() / M);
    if (count == 0) return 0;
    std::vector<double> draws(count * M);
    for (double& draw : draws) draw = std::uniform_real_distribution<double>(0, 1)(random_);
    std::vector<int32_t> chosen(draws.size());
    return static_cast<size_t>(batch_->extend_ahead(left.first(M), numbers_, kDrawn, draws, chosen));
  }

  int64_t vocab_size_, block_;
  std::vector<int32_t> numbers_;
  std::optional<Session> session_;
  std::optional<Batch> batch_;
  std::mt19937_64 random_{1};
};

// Loads the model `loads` times, between bare reads of its files, and leaves the last in `engine`.
LoadResult bench_load(const ModelArguments& model, ModelFiles files, int loads, std::unique_ptr<Engine>& engine) {
  const auto disk_files = files.checkpoint->files;
  int64_t bytes = 0;
  for (const WeightEntry& entry : files.model->weights.entries()) bytes += entry.bytes();
  std::vector<double> seconds, gbps, file_gbps, shares;
  double before = measure_file_gbps(disk_files);
  for (int load = 0; load < loads; load++) {
    if (load > 0) {
      engine.reset();
      files = open_model(model.path);
    }
    seconds.push_back(seconds_of([&] { engine = load_engine(model, std::move(files)); }));
    const double after = measure_file_gbps(disk_files);
    gbps.push_back(static_cast<double>(bytes) / seconds.back() / 1e9);
    file_gbps.push_back((before + after) / 2);
    shares.push_back(gbps.back() / file_gbps.back());
    before = after;
  }
  return {bytes, median(seconds), median(gbps), median(file_gbps), median(shares)};
}

PrefillResult bench_prefill(Engine& engine, Sequences& sequences, int64_t length, int runs) {
  const std::vector<int32_t> tokens = some_tokens(length, engine.model().config.vocab_size);
  std::vector<double> tok_s;
  for (int run = -1; run < runs; run++) {  // the first warms up
    const double seconds = seconds_of([&] { sequences.prefill_first(tokens); });
    if (run >= 0) tok_s.push_back(static_cast<double>(length) / seconds);
  }
  return {length, median(tok_s)};
}

DecodeResult bench_decode(Engine& engine, Sequences& sequences, int64_t depth, int64_t new_tokens, int runs) {
  const int64_t M = sequences.count();
  sequences.fill(depth);
  Backend& backend = engine.backend();
  std::vector<double> tok_s, gbps, roofs, shares;
  double bytes = 0;
  double before = backend.measure_read_gbps();
  for (int run = -1; run < runs; run++) {
    sequences.go_back(depth);
    const double seconds = seconds_of([&] { bytes = sequences.decode(new_tokens); });
    const double after = backend.measure_read_gbps();
    if (run >= 0) {
      tok_s.push_back(static_cast<double>(new_tokens * M) / seconds);
      gbps.push_back(bytes / seconds / 1e9);
      roofs.push_back((before + after) / 2);  // the roof drifts: the mean of both sides of the run
      shares.push_back(gbps.back() / roofs.back());
    }
    before = after;
  }
  // Phases in a run of their own: on a GPU each is then a command buffer.
  sequences.decode_step().set_profiling(true);
  sequences.go_back(depth);
  sequences.decode(new_tokens);
  sequences.decode_step().set_profiling(false);
  const auto bytes_per_step = static_cast<int64_t>(bytes / static_cast<double>(new_tokens));
  return {.depth = depth,
          .tok_s = median(tok_s),
          .read_gbps = median(gbps),
          .roof_gbps = median(roofs),
          .roof_share = median(shares),
          .bytes_per_step = bytes_per_step,
          .bytes_per_token = bytes_per_step / M};
}

// `experts` names the FP4 that `rest` may be, too.
RandomFormats random_formats(const BenchArguments& a) {
  const FormatId fp4 = a.experts == "mxfp4" ? FormatId::mxfp4 : FormatId::nvfp4;
  return {fp4, a.rest == "q8_0" ? FormatId::q8_0 : a.rest == "bf16" ? FormatId::bf16 : fp4};
}

void bench(const BenchArguments& a) {
  ModelArguments model = a.model;
  const int64_t longest =
      std::max(*std::ranges::max_element(a.prompts), *std::ranges::max_element(a.depths) + a.new_tokens);
  model.ctx = std::max(model.ctx, longest);
  if (a.shape.empty() == a.model.path.empty()) throw_input_error("bench needs a MODEL or a --shape, one of the two");
  const std::unique_ptr<OutputFile> plot = open_plot(a.plot);
  model.num_sequences = a.batch;
  model.measures_roof = true;
  ModelFiles files = a.shape.empty() ? open_model(model.path) : random_model(a.shape, a.layers, random_formats(a));
  if (const int64_t most = files.model->config.max_position_embeddings; most < longest)
    throw_input_error("{}: {} positions are asked for; the model has {}", files.checkpoint->path.string(), longest,
                      most);
  std::unique_ptr<Engine> engine;
  std::optional<LoadResult> load;
  if (a.shape.empty())
    load = bench_load(model, std::move(files), a.loads, engine);
  else
    engine = load_engine(model, std::move(files));
  Sequences sequences(*engine, a.batch);
  engine->backend().measure_read_gbps();
  std::vector<PrefillResult> prefills;
  for (int64_t length : a.prompts) prefills.push_back(bench_prefill(*engine, sequences, length, a.runs));
  std::vector<DecodeResult> decodes;
  for (int64_t depth : a.depths) decodes.push_back(bench_decode(*engine, sequences, depth, a.new_tokens, a.runs));
  const BenchReport report{.batch = a.batch,
                           .engine = *engine,
                           .backend = engine->backend(),
                           .load = load,
                           .prefills = std::move(prefills),
                           .decodes = std::move(decodes),
                           .phases = sum_phases(sequences.decode_step().phases()),
                           .profiled_steps = a.new_tokens * static_cast<int64_t>(a.depths.size())};
  (a.json ? print_bench_json : print_bench)(report);
  if (plot) write_plot(*plot, bench_svg(report));
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure decode and prefill speed as a share of the read bandwidth");
  command->footer(
      "Every figure is the median of --runs, after a warm-up. The read bandwidth is measured before and after each "
      "run,\n"
      "since it drifts; a share is a run's GB/s over the mean of the two.\n\n"
      "  nibble bench model.gguf --prompt 128,512 --depth 0,2048 --json\n"
      "  nibble bench --shape llama-3.2-1b --plot decode.svg");
  auto a = std::make_shared<BenchArguments>();
  add_model_arguments(*command, a->model)->required(false);
  std::string shapes;
  for (std::string_view name : shape_names()) shapes += (shapes.empty() ? "" : ", ") + std::string(name);
  CLI::Option* shape =
      command->add_option("--shape", a->shape, "Random weights of a published shape instead of MODEL: " + shapes)
          ->check(not_empty);
  command->add_option("--layers", a->layers, "With --shape: fewer layers; 0: all")
      ->needs(shape)
      ->check(CLI::Range(int64_t{0}, int64_t{4096}))
      ->capture_default_str();
  command->add_option("--experts", a->experts, "With --shape: the FP4 format, nvfp4 or mxfp4")
      ->needs(shape)
      ->check(CLI::IsMember({"nvfp4", "mxfp4"}))
      ->capture_default_str();
  command->add_option("--rest", a->rest, "With --shape: matrices outside experts in fp4, q8_0 or bf16")
      ->needs(shape)
      ->check(CLI::IsMember({"fp4", "q8_0", "bf16"}))
      ->capture_default_str();
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 28);
  add_list_option(*command, "--prompt", a->prompts, "Prompt lengths for prefill", positive);
  add_list_option(*command, "--depth", a->depths,
                  "Positions in the cache before decoding: a prompt of up to 512 tokens, over and over",
                  CLI::Range(int64_t{0}, int64_t{1} << 28));
  command->add_option("--new-tokens", a->new_tokens, "Tokens decoded in a run")->check(positive)->capture_default_str();
  command
      ->add_option("--batch", a->batch,
                   "Sequences decoded together, a token of each in a step; tok/s are of all, and experts that several "
                   "chose are counted as read once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--runs", a->runs, "Runs")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--loads", a->loads, "Times that MODEL is loaded")
      ->excludes(shape)
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--json", a->json, "JSON instead of text");
  command->add_option("--plot", a->plot, "Also draw a bar chart, FILE.svg")->check(not_empty);
  command->callback([a] { bench(*a); });
}

}  // namespace nibble
