#include "plot.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include <fmt/format.h>

namespace nibble {

namespace {

// In pixels. Bars begin at kLeft, the longest of a panel or its limit ends at kRight; values stand behind the bars.
constexpr int kWidth = 760, kMargin = 32, kLeft = 232, kRight = 640;
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

int panel_height(const BarChart& chart) { return kPanelHead + kBarStep * static_cast<int>(chart.series.size()); }

std::string panel_svg(const BarChart& chart, const BarPanel& panel, int top) {
  std::string out = fmt::format(
      "<text x=\"{}\" y=\"{}\" font-size=\"15\" font-weight=\"600\" fill=\"{}\">{}"
      "<tspan font-size=\"12\" font-weight=\"400\" fill=\"{}\" dx=\"10\">{}</tspan></text>\n",
      kMargin, top + 18, kInk, escaped(panel.title), kPale, escaped(panel.note));
  const double longest = std::max(*std::ranges::max_element(panel.values), panel.limit.value_or(0));
  const auto length = [&](double value) { return longest > 0 ? value / longest * (kRight - kLeft) : 0; };
  const int first = top + kPanelHead - 6;
  for (size_t i = 0; i < panel.values.size(); i++) {
    const int y = first + static_cast<int>(i) * kBarStep;
    const bool is_last = i + 1 == panel.values.size();
    const double width = std::max(length(panel.values[i]), 1.0);  // too short a bar is still to be seen
    out += text_at(kLeft - 12, y + 17, chart.series[i], {.ends_here = true});
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" rx=\"2\" fill=\"{}\"/>\n", kLeft, y,
                       width, kBar, is_last ? kAccent : kGreys[std::min(i, kGreys.size() - 1)]);
    // Nothing is written across the line of the limit.
    const bool crosses = panel.limit && width < length(*panel.limit) && width + 88 > length(*panel.limit);
    const std::string value = number(panel.values[i]) + " " + panel.unit;
    out += crosses
               ? text_at(kLeft + width - 8, y + 17, value, {.colour = "#ffffff", .bold = is_last, .ends_here = true})
               : text_at(kLeft + width + 8, y + 17, value, {.bold = is_last});
  }
  if (panel.limit) {
    const double x = kLeft + length(*panel.limit);
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#b3261e\" stroke-width=\"1.5\" "
        "stroke-dasharray=\"5 4\"/>\n",
        x, first - 6, first + kBarStep * static_cast<int>(panel.values.size()) - 2);
    out += text_at(x, first - 10, panel.limit_name + " " + number(*panel.limit) + " " + panel.unit,
                   {.size = 12, .colour = "#b3261e", .ends_here = true});
  }
  return out;
}

}  // namespace

std::string bar_chart_svg(const BarChart& chart) {
  const int head = 48 + 19 * static_cast<int>(chart.subtitles.size()) + 14;
  const int height = head + static_cast<int>(chart.panels.size()) * (panel_height(chart) + kPanelGap) + 8;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"Inter, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n"
      "<title>{2}</title>\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      kWidth, height, escaped(chart.title));
  out += text_at(kMargin, 40, chart.title, {.size = 20, .bold = true});
  int y = 48;
  for (const std::string& line : chart.subtitles) out += text_at(kMargin, y += 19, line, {.colour = kPale});
  y = head;
  for (const BarPanel& panel : chart.panels) {
    out += panel_svg(chart, panel, y);
    y += panel_height(chart) + kPanelGap;
  }
  return out + "</svg>\n";
}

}  // namespace nibble
