#include "bench_report.h"

#include "commands.h"
#include "plot.h"
#include "program.h"

namespace nibble {

std::vector<PhaseSum> sum_phases(const std::vector<Phase>& phases) {
  std::vector<PhaseSum> sums;
  for (const Phase& phase : phases) {
    if (phase.seconds == 0) continue;
    const auto same = [&](const PhaseSum& s) {
      return s.name == phase.name && s.weight_bytes == s.count * phase.weight_bytes;
    };
    auto it = std::ranges::find_if(sums, same);
    if (it == sums.end()) it = sums.insert(it, PhaseSum{.name = phase.name});
    it->count++;
    it->weight_bytes += phase.weight_bytes;
    it->read_bytes += phase.read_bytes;
    it->cache_bytes += phase.cache_bytes;
    it->seconds += phase.seconds;
  }
  return sums;
}

std::string BenchReport::cache_note() const {
  return nibble::cache_note(static_cast<double>(decodes.front().bytes_per_step));
}

void print_bench_json(const BenchReport& report) {
  nlohmann::ordered_json json;
  const DecodeResult& first = report.decodes.front();
  json["model"] = report.engine.checkpoint().path.string();
  json["architecture"] = report.engine.model().config.architecture;
  json["backend"] = report.backend.name();
  json["backend_description"] = report.backend.description();
  json["batch"] = report.batch;
  json["decode_tok_s"] = first.tok_s;
  json["prefill_tok_s"] = report.prefills.front().tok_s;
  json["bytes_per_step"] = first.bytes_per_step;
  json["bytes_per_token"] = first.bytes_per_token;
  json["roof_gbps"] = first.roof_gbps;
  json["roof_share"] = first.roof_share;
  json["fits_last_level_cache"] = !report.cache_note().empty();
  if (const auto& load = report.load)
    json["load"] = {{"bytes", load->bytes},
                    {"seconds", load->seconds},
                    {"gbps", load->gbps},
                    {"file_gbps", load->file_gbps},
                    {"share", load->share}};
  for (const DecodeResult& r : report.decodes)
    json["decode"].push_back({{"depth", r.depth},
                              {"decode_tok_s", r.tok_s},
                              {"bytes_per_step", r.bytes_per_step},
                              {"bytes_per_token", r.bytes_per_token},
                              {"read_gbps", r.read_gbps},
                              {"roof_gbps", r.roof_gbps},
                              {"roof_share", r.roof_share}});
  for (const PrefillResult& r : report.prefills)
    json["prefill"].push_back({{"prompt_tokens", r.prompt_tokens}, {"prefill_tok_s", r.tok_s}});
  json["phases"] = nlohmann::ordered_json::array();
  for (const PhaseSum& phase : report.phases) {
    const std::optional<double> share = report.roof_share(phase);
    json["phases"].push_back({{"name", phase.name},
                              {"count", phase.count},
                              {"us", report.us(phase)},
                              {"weight_bytes", report.weight_bytes(phase)},
                              {"cache_bytes", report.cache_bytes(phase)},
                              {"roof_share", share ? nlohmann::ordered_json(*share) : nlohmann::ordered_json()}});
  }
  print_json(json);
}

void print_bench(const BenchReport& report) {
  const int64_t batch = report.batch;
  if (const auto& load = report.load)
    fmt::print("load    {} in {:.2f} s, {:.1f} GB/s, {:.0f} % of bare reads of the files ({:.1f} GB/s)\n",
               bytes_text(static_cast<double>(load->bytes)), load->seconds, load->gbps, 100 * load->share,
               load->file_gbps);
  for (const PrefillResult& r : report.prefills)
    fmt::print("prefill {:>6} tokens   {:8.1f} tok/s\n", r.prompt_tokens, r.tok_s);
  for (const DecodeResult& r : report.decodes) {
    fmt::print("decode at depth {:>6} {:8.1f} tok/s", r.depth, r.tok_s);
    if (batch > 1) fmt::print(" in all, {:.1f} for each of {} sequences", r.tok_s / static_cast<double>(batch), batch);
    fmt::print("   {} a {}, {:.1f} GB/s, {:.0f} % of the roof ({:.1f} GB/s)\n",
               bytes_text(static_cast<double>(r.bytes_per_step)), batch > 1 ? "step" : "token", r.read_gbps,
               100 * r.roof_share, r.roof_gbps);
  }
  if (const std::string note = report.cache_note(); !note.empty()) fmt::print("({})\n", note);
  constexpr const char* kName = "phase of a step";
  size_t width = std::string_view(kName).size();
  for (const PhaseSum& phase : report.phases) width = std::max(width, phase.name.size());
  fmt::print("\n{:<{}} {:>6} {:>10} {:>10} {:>8} {:>6}\n", kName, width, "count", "µs", "bytes", "GB/s", "share");
  for (const PhaseSum& phase : report.phases) {
    fmt::print("{:<{}} {:>6} {:>10.1f}", phase.name, width, phase.count, report.us(phase));
    if (const std::optional<double> share = report.roof_share(phase))
      fmt::print(" {:>10} {:>8.1f} {:>4.0f} %", bytes_text(report.bytes(phase)), report.gbps(phase), 100 * *share);
    fmt::print("\n");
  }
}

std::string bench_svg(const BenchReport& report) {
  const int64_t batch = report.batch;
  const std::filesystem::path path = (report.engine.checkpoint().path / "").parent_path();  // a folder may end with '/'
  BarChart chart{.title = "Decoding " + path.filename().string(),
                 .subtitles = {fmt::format("{} read for a step of {} token{}",
                                           bytes_text(static_cast<double>(report.decodes.front().bytes_per_step)),
                                           batch, batch == 1 ? "" : "s"),
                               fmt::format("{}; {}", machine_and_date(), report.backend.description())}};
  if (const std::string note = report.cache_note(); !note.empty()) chart.subtitles.push_back(note);
  BarPanel speed{.title = "Decode speed", .unit = "tok/s", .note = "more is better"};
  BarPanel share{.title = "Weights and cache read",
                 .unit = "%",
                 .note = "of the measured read bandwidth",
                 .limit = 100,
                 .limit_name = "measured roof"};
  for (const DecodeResult& r : report.decodes) {
    const std::string name = fmt::format("depth {}", r.depth);
    speed.bars.push_back({name, r.tok_s});
    share.bars.push_back({name, 100 * r.roof_share});
  }
  BarPanel times{.title = "Time of a step", .unit = "%", .note = "by kind of phase"};
  BarPanel reads{.title = "Weights and cache read",
                 .unit = "%",
                 .note = "by the phases that read either",
                 .limit = 100,
                 .limit_name = "measured roof"};
  double seconds = 0;
  for (const PhaseSum& phase : report.phases) seconds += phase.seconds;
  for (const PhaseSum& phase : report.phases) {
    const std::string name = phase.count > 1 ? fmt::format("{} × {}", phase.count, phase.name) : phase.name;
    if (phase.seconds > 0) times.bars.push_back({name, 100 * phase.seconds / seconds});  // the reference counts none
    if (const auto roof_share = report.roof_share(phase)) reads.bars.push_back({name, 100 * *roof_share});
  }
  for (BarPanel* panel : {&speed, &share, &times, &reads})
    if (!panel->bars.empty()) chart.panels.push_back(std::move(*panel));
  return bar_chart_svg(chart);
}

}  // namespace nibble
