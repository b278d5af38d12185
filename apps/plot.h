// Charts as SVG, for figures of what was measured: bars, a panel for each quantity, and lines, a panel for each thing that
// was varied and a line in it for each series.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/output_file.h"

namespace nibble {

struct Bar {
  std::string name;  // "depth 2048"
  double value;      // finite, not negative
};

struct BarPanel {
  std::string title;  // "Decode speed"
  std::string unit;   // "tok/s"
  std::string note;   // "more is better"
  std::vector<Bar> bars;
  bool last_stands_out = false;  // the others are grey
  std::optional<double> limit;   // drawn as a dashed line across the bars
  std::string limit_name;
};

struct BarChart {
  std::string title;
  std::vector<std::string> subtitles;  // lines below the title
  std::vector<BarPanel> panels;
};

// The whole file. Each panel has a scale of its own that begins at 0.
std::string bar_chart_svg(const BarChart& chart);

// Shares of a limit, in percent, over a quantity that grows by factors.
struct LinePanel {
  std::string title;                        // "M = 1"
  std::string x_title;                      // "MB of the matrix"
  std::vector<double> x;                    // positive, ascending: the ticks
  std::vector<std::vector<double>> shares;  // of each series, one for each x; NaN: not measured
};

struct LineChart {
  std::string title;
  std::vector<std::string> subtitles;
  std::vector<std::string> series;
  std::vector<LinePanel> panels;
  std::string limit_name;  // of the dashed line at 100 %
};

// The whole file. x is logarithmic; all panels have one scale of shares, from 0 to at least 100 %.
std::string line_chart_svg(const LineChart& chart);

// The file of --plot NAME, created before anything is measured; null if NAME is empty. Throws InputError unless it ends
// with .svg.
std::unique_ptr<OutputFile> open_plot(const std::string& name);
void write_plot(OutputFile& file, const std::string& svg);

// "AMD EPYC, 2026-11-25", for a subtitle.
std::string machine_and_date();

}  // namespace nibble
