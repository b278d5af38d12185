#include "plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <ctime>

#include <fmt/format.h>

#include "base/error.h"
#include "base/topology.h"

namespace nibble {

namespace {

// In pixels. Bars begin at bars_left, the longest of a panel or its limit ends at kRight; values stand behind the bars.
constexpr int kWidth = 760, kMargin = 32, kRight = 640;
constexpr int kBar = 24, kBarStep = 32, kPanelHead = 40, kPanelGap = 14;
constexpr const char* kInk = "#1f2933";
constexpr const char* kPale = "#66727f";
constexpr std::array kGreys = {"#b4bcc4", "#8d97a1", "#69747f"};
constexpr const char* kAccent = "#1769aa";

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20) out += c;
    }
  }
  return out;
}

// Three figures: 0.713, 21.4, 128.
std::string number(double value) {
  return fmt::format("{:.{}f}", value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : value >= 0.9995 ? 2 : 3);
}

struct TextStyle {
  int size = 13;
  const char* colour = kInk;
  bool bold = false, ends_here = false;
};

std::string text_at(double x, double y, const std::string& text, TextStyle style) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{}\" fill=\"{}\"{}{}>{}</text>\n", x, y, style.size,
                     style.colour, style.bold ? " font-weight=\"600\"" : "",
                     style.ends_here ? " text-anchor=\"end\"" : "", escaped(text));
}

int panel_height(const BarPanel& panel) { return kPanelHead + kBarStep * static_cast<int>(panel.bars.size()); }

// Behind the longest name of a bar.
int bars_left(const BarChart& chart) {
  size_t longest = 0;
  for (const BarPanel& panel : chart.panels)
    for (const Bar& bar : panel.bars) longest = std::max(longest, bar.name.size());
  return std::clamp(kMargin + 12 + 7 * static_cast<int>(longest), 232, 360);
}

std::string panel_svg(const BarPanel& panel, int left, int top) {
  std::string out = fmt::format(
      "<text x=\"{}\" y=\"{}\" font-size=\"15\" font-weight=\"600\" fill=\"{}\">{}"
      "<tspan font-size=\"12\" font-weight=\"400\" fill=\"{}\" dx=\"10\">{}</tspan></text>\n",
      kMargin, top + 18, kInk, escaped(panel.title), kPale, escaped(panel.note));
  double longest = panel.limit.value_or(0);
  for (const Bar& bar : panel.bars) longest = std::max(longest, bar.value);
  const auto length = [&](double value) { return longest > 0 ? value / longest * (kRight - left) : 0; };
  const int first = top + kPanelHead - 6;
  for (size_t i = 0; i < panel.bars.size(); i++) {
    const Bar& bar = panel.bars[i];
    const int y = first + static_cast<int>(i) * kBarStep;
    out += text_at(left - 12, y + 17, bar.name, {.ends_here = true});
    const bool is_last = panel.last_stands_out && i + 1 == panel.bars.size();
    const double width = std::max(length(bar.value), 1.0);  // too short a bar is still to be seen
    out +=
        fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" rx=\"2\" fill=\"{}\"/>\n", left, y, width,
                    kBar, is_last || !panel.last_stands_out ? kAccent : kGreys[std::min(i, kGreys.size() - 1)]);
    // Nothing is written across the line of the limit.
    const bool crosses = panel.limit && width < length(*panel.limit) && width + 88 > length(*panel.limit);
    const std::string value = number(bar.value) + " " + panel.unit;
    out += crosses ? text_at(left + width - 8, y + 17, value, {.colour = "#ffffff", .bold = is_last, .ends_here = true})
                   : text_at(left + width + 8, y + 17, value, {.bold = is_last});
  }
  if (panel.limit) {
    const double x = left + length(*panel.limit);
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#b3261e\" stroke-width=\"1.5\" "
        "stroke-dasharray=\"5 4\"/>\n",
        x, first - 6, first + kBarStep * static_cast<int>(panel.bars.size()) - 2);
    out += text_at(x, first - 10, panel.limit_name + " " + number(*panel.limit) + " " + panel.unit,
                   {.size = 12, .colour = "#b3261e", .ends_here = true});
  }
  return out;
}

// The beginning of a file, up to below the subtitles.
std::string head_svg(const std::string& title, const std::vector<std::string>& subtitles, int height) {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"Inter, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n"
      "<title>{2}</title>\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      kWidth, height, escaped(title));
  out += text_at(kMargin, 40, title, {.size = 20, .bold = true});
  int y = 48;
  for (const std::string& line : subtitles) out += text_at(kMargin, y += 19, line, {.colour = kPale});
  return out;
}

int head_height(const std::vector<std::string>& subtitles) { return 48 + 19 * static_cast<int>(subtitles.size()) + 14; }

// Line charts: a panel's axes span kLineLeft … kLineRight and kLineHeight below its title; a legend stands to the right.
constexpr int kLineLeft = 76, kLineRight = 520, kLineHeight = 220, kLinePanel = 40 + kLineHeight + 56;
constexpr std::array kColours = {"#1769aa", "#b3261e", "#2e7d32", "#8e24aa",
                                 "#ef6c00", "#00838f", "#6d4c41", "#546e7a"};

std::string line_panel_svg(const LineChart& chart, const LinePanel& panel, double most, int top) {
  const int bottom = top + 40 + kLineHeight;
  const double first = std::log(panel.x.front()), span = std::max(std::log(panel.x.back()) - first, 1e-9);
  const auto across = [&](double x) {
    return kLineLeft + 12 + (std::log(x) - first) / span * (kLineRight - kLineLeft - 24);
  };
  const auto up = [&](double share) { return bottom - share / most * kLineHeight; };
  std::string out = text_at(kMargin, top + 18, panel.title, {.size = 15, .bold = true});
  for (double share = 0; share <= most; share += 20) {
    out += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"1\"{}/>\n",
                       kLineLeft, kLineRight, up(share), up(share), share == 100 ? "#b3261e" : "#e3e7ea",
                       share == 100 ? " stroke-dasharray=\"5 4\"" : "");
    out += text_at(kLineLeft - 8, up(share) + 4, fmt::format("{:.0f} %", share),
                   {.size = 12, .colour = kPale, .ends_here = true});
  }
  out += text_at(kLineRight, up(100) - 6, chart.limit_name, {.size = 12, .colour = "#b3261e", .ends_here = true});
  for (double x : panel.x)
    out +=
        text_at(across(x) + 10, bottom + 18, fmt::format("{:g}", x), {.size = 12, .colour = kPale, .ends_here = true});
  out += text_at(kLineLeft, bottom + 36, panel.x_title, {.size = 12, .colour = kPale});
  for (size_t s = 0; s < panel.shares.size(); s++) {
    const char* colour = kColours[s % kColours.size()];
    std::string points, dots;
    for (size_t i = 0; i < panel.x.size(); i++) {
      const double share = panel.shares[s][i];
      if (std::isnan(share)) continue;
      points += fmt::format("{:.1f},{:.1f} ", across(panel.x[i]), up(share));
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", across(panel.x[i]), up(share),
                          colour);
    }
    out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", points, colour) +
           dots;
    const int y = top + 52 + static_cast<int>(s) * 20;
    out += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"3\"/>\n",
                       kLineRight + 20, kLineRight + 40, y, y, colour);
    out += text_at(kLineRight + 48, y + 4, chart.series[s], {});
  }
  return out;
}

}  // namespace

std::string bar_chart_svg(const BarChart& chart) {
  const int head = head_height(chart.subtitles), left = bars_left(chart);
  int height = head + 8;
  for (const BarPanel& panel : chart.panels) height += panel_height(panel) + kPanelGap;
  std::string out = head_svg(chart.title, chart.subtitles, height);
  int y = head;
  for (const BarPanel& panel : chart.panels) {
    out += panel_svg(panel, left, y);
    y += panel_height(panel) + kPanelGap;
  }
  return out + "</svg>\n";
}

std::string line_chart_svg(const LineChart& chart) {
  double most = 100;
  for (const LinePanel& panel : chart.panels)
    for (const auto& shares : panel.shares)
      for (double share : shares)
        if (share > most) most = share;
  const int head = head_height(chart.subtitles);
  std::string out =
      head_svg(chart.title, chart.subtitles, head + static_cast<int>(chart.panels.size()) * kLinePanel + 8);
  int y = head;
  for (const LinePanel& panel : chart.panels) {
    out += line_panel_svg(chart, panel, most, y);
    y += kLinePanel;
  }
  return out + "</svg>\n";
}

std::unique_ptr<OutputFile> open_plot(const std::string& name) {
  std::unique_ptr<OutputFile> plot;
  if (name.empty()) return plot;
  if (!name.ends_with(".svg"))
    throw_input_error("--plot {}: only .svg is written; other programs make a PNG of it", name);
  plot = std::make_unique<OutputFile>(name);
  return plot;
}

void write_plot(OutputFile& file, const std::string& svg) {
  file.write(0, {reinterpret_cast<const uint8_t*>(svg.data()), svg.size()});
  file.commit();
}

std::string machine_and_date() {
  const std::string cpu = read_topology().cpu_name;
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format("{}, {:04}-{:02}-{:02}", cpu.empty() ? "unknown processor" : cpu, utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday);
}

}  // namespace nibble
