// What all programs share: exit codes, where text goes, progress, terminals.
#pragma once

#include <cstdint>
#include <functional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

namespace nibble {

// Parses the arguments and lets CLI11 call the chosen command's callback. Returns the exit code: 0, 1 if something
// failed while working, 2 for bad arguments or bad input; the reason goes to stderr.
int run_program(CLI::App& app, int argc, char** argv);

// For the check of an option that would read as not given if its text were empty.
std::string not_empty(const std::string& text);

// Whether stderr is a terminal where a progress bar makes sense.
bool stderr_is_terminal();

// A progress bar on stderr with GB/s, if that is a terminal; else a function that does nothing.
std::function<void(int64_t done_bytes, int64_t all_bytes)> progress_bar(const char* what);

// Prints JSON and a line end to stdout. Text that is not UTF-8 has its faults replaced.
void print_json(const nlohmann::ordered_json& json);

// "1.23 GB", "45.6 MB", "789 KB".
std::string bytes_text(double bytes);

double median(std::vector<double> values);

}  // namespace nibble
