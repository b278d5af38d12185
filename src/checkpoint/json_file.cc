#include "checkpoint/json_file.h"

#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"

namespace nibble {

namespace {

constexpr size_t kMaxBytes = size_t{100} << 20;     // the limit that safetensors sets for its headers
constexpr size_t kMaxJsonValues = size_t{1} << 22;  // up to 160 bytes each; the largest tokenizer.json has 2e6
constexpr size_t kMaxDepth = 64;                    // nlohmann copies and prints recursively: this bounds the stack

// Walks the text once without building anything; throws at the first fault.
class Checker : public nlohmann::json_sax<nlohmann::json> {
 public:
  Checker(std::string_view where, RepeatedKeys repeated_keys, std::string_view advice)
      : where_(where), advice_(advice), repeated_keys_(repeated_keys) {}

  bool null() override { return count(); }
  bool boolean(bool) override { return count(); }
  bool number_integer(number_integer_t) override { return count(); }
  bool number_unsigned(number_unsigned_t) override { return count(); }
  bool number_float(number_float_t, const string_t&) override { return count(); }
  bool string(string_t&) override { return count(); }
  bool binary(binary_t&) override { return count(); }
  bool start_object(size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(); }
  bool end_array() override { return close(); }

  bool key(string_t& key) override {
    if (repeated_keys_ == RepeatedKeys::rejected && !keys_.back().insert(key).second)
      throw_input_error("{}: the key \"{}\" is there twice; which one is meant is unknown, so write the file anew",
                        where_, key);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    throw_input_error("{}: not valid JSON at byte {}: {}; {}", where_, position, error.what(), advice_);
  }

 private:
  bool count() {
    if (++num_values_ > kMaxJsonValues)
      throw_input_error("{}: more than {} JSON values, which is the most that is read", where_, kMaxJsonValues);
    return true;
  }
  bool open() {
    count();
    keys_.emplace_back();
    if (keys_.size() > kMaxDepth)
      throw_input_error("{}: JSON nested {} deep, at most {} is read", where_, keys_.size(), kMaxDepth);
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::string_view where_, advice_;
  RepeatedKeys repeated_keys_;
  size_t num_values_ = 0;
  std::vector<std::set<std::string>> keys_;  // of each object that is open; empty for arrays
};

// Throws InputError unless `text` is one JSON value within the bounds: what parses it next can neither fail nor overflow the
// stack. `advice` is for text that is no JSON.
void check(std::string_view text, std::string_view where, RepeatedKeys repeated_keys, std::string_view advice) {
  if (text.size() > kMaxBytes)
    throw_input_error("{}: {} bytes of JSON, at most {} are read; the length is wrong or this is another kind of file",
                      where, text.size(), kMaxBytes);
  Checker checker(where, repeated_keys, advice);
  walk_json(text, checker);
}

}  // namespace

nlohmann::ordered_json parse_written_json(std::string_view text, std::string_view where) {
  check(text, where, RepeatedKeys::last_wins, "correct it there");
  return parse_ordered_json(text);
}

nlohmann::json parse_json_object(std::string_view text, std::string_view where, RepeatedKeys repeated_keys) {
  check(text, where, repeated_keys, "the file is damaged: fetch it again");
  auto json = parse_json(text);
  if (!json.is_object()) throw_input_error("{}: a JSON {} in the file, an object expected", where, json.type_name());
  return json;
}

nlohmann::json read_json_file(const std::filesystem::path& path, RepeatedKeys repeated_keys) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse_json_object({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), repeated_keys);
}

}  // namespace nibble
