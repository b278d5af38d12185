// JSON text from files that nobody vouches for: bounded in size and depth, every fault an InputError.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/json.h"

namespace nibble {

// What a key that occurs twice in one object means: Python's reader, for which config.json was written, takes the last
// one; in a table of tensors it is a fault.
enum class RepeatedKeys { last_wins, rejected };

// Parses what the user wrote: one JSON value. Messages start with `where` ("{file}", "stdin").
nlohmann::ordered_json parse_written_json(std::string_view text, std::string_view where);

// Parses `text` of a model's file, which must be one JSON object. Messages start with `where` ("{file}", "{file}: header").
nlohmann::json parse_json_object(std::string_view text, std::string_view where, RepeatedKeys repeated_keys);

// The object in a file. Throws InputError if there is no such file.
nlohmann::json read_json_file(const std::filesystem::path& path, RepeatedKeys repeated_keys);

}  // namespace nibble
