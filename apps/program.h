// What all programs share: exit codes, where text goes, progress, terminals.
#pragma once

#include <cstdint>
#include <functional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/json.h"

namespace nibble {

// Parses the arguments and lets CLI11 call the chosen command's callback. Returns the exit code: 0, 1 if something
// failed while working, 2 for bad arguments or bad input; the reason goes to stderr.
int run_program(CLI::App& app, int argc, char** argv);

// For the check of an option that would read as not given if its text were empty.
std::string not_empty(const std::string& text);

// Adds an option for values with commas between them, as in 1,2,3; given again, it adds to them. An empty value is refused,
// where CLI11's own lists leave it out.
template <class T>
CLI::Option* add_list_option(CLI::App& app, const std::string& name, std::vector<T>& values,
                             const std::string& description, const CLI::Validator& check = {}) {
  const auto take = [=, &values](const std::vector<std::string>& lists) {
    values.clear();
    for (const std::string& list : lists)
      // Behind the last comma it splits off nothing.
      for (const std::string& text : CLI::detail::split(fmt::format("{},", list), ',')) {
        std::string fault = text.empty() ? "a value is empty" : check(text);
        T value{};
        if (fault.empty() && !CLI::detail::lexical_cast(text, value)) fault = fmt::format("{} is no such value", text);
        if (!fault.empty())
          throw CLI::ValidationError(name,
                                     fmt::format("'{}': {}; values with commas between them expected", list, fault));
        values.push_back(value);
      }
  };
  const std::string what = check.get_description().empty() ? CLI::detail::type_name<T>() : check.get_description();
  return app.add_option_function<std::vector<std::string>>(name, take, description)
      ->type_name(what + ",...")
      ->default_str(CLI::detail::join(values, ","))
      ->allow_extra_args(false);
}

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
