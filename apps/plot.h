// Bar charts as SVG, for figures of what was measured: a panel for each quantity, a bar in it for each series.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace nibble {

struct BarPanel {
  std::string title;            // "Decode speed"
  std::string unit;             // "tok/s"
  std::string note;             // "more is better"
  std::vector<double> values;   // one for each series, finite, not negative
  std::optional<double> limit;  // drawn as a dashed line across the bars
  std::string limit_name;
};

struct BarChart {
  std::string title;
  std::vector<std::string> subtitles;  // lines below the title
  std::vector<std::string> series;     // four at most; the last one stands out
  std::vector<BarPanel> panels;
};

// The whole file. Each panel has a scale of its own that begins at 0.
std::string bar_chart_svg(const BarChart& chart);

}  // namespace nibble
