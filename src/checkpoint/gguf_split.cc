#include "checkpoint/gguf_split.h"

#include "base/error.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view kPrefix = "split.", kNumber = "split.no", kCount = "split.count",
                           kNumTensors = "split.tensors.count";

int64_t read_number(const Json& metadata, std::string_view key, int64_t least, int64_t most, std::string_view file) {
  const auto it = metadata.find(key);
  if (it == metadata.end())
    throw_input_error("{}: has metadata {}, but no {}; the file is damaged: fetch it again", file, kCount, key);
  const int64_t value = it->is_number_integer() ? it->get<int64_t>() : -1;
  if (value < least || value > most)
    throw_input_error("{}: metadata {}: {}, a number from {} to {} expected; the file is damaged: fetch it again", file,
                      key, it->dump(-1, ' ', false, Json::error_handler_t::replace), least, most);
  return value;
}

std::string ending(int64_t number, int64_t count) { return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count); }

std::string text_of(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80);
}

}  // namespace

GgufSplit read_gguf_split(const GgufContents& contents, std::string_view file) {
  constexpr int64_t kMost = 99999;  // five digits in the name
  const Json& metadata = contents.metadata;
  const auto num_tensors = static_cast<int64_t>(contents.tensors.size());
  if (!metadata.contains(kCount)) return {.num_tensors = num_tensors};
  GgufSplit split{.count = read_number(metadata, kCount, 0, kMost, file), .num_tensors = num_tensors};
  if (split.count <= 1) return {.num_tensors = num_tensors};  // 0: merged again
  split.number = read_number(metadata, kNumber, 0, split.count - 1, file);
  split.num_tensors = read_number(metadata, kNumTensors, num_tensors, INT64_MAX, file);
  return split;
}

fs::path gguf_part_path(const fs::path& path, const GgufSplit& split, int64_t number) {
  const std::string name = path.filename().string(), expected = ending(split.number, split.count);
  if (!name.ends_with(expected))
    throw_input_error(
        "{}: is part {} of a model in {} files, whose name ends with {}; rename all of them so, for the others are "
        "found by their names",
        path.string(), split.number + 1, split.count, expected);
  return path.parent_path() / (name.substr(0, name.size() - expected.size()) + ending(number, split.count));
}

void add_gguf_part(GgufContents part, std::string_view file, int64_t number, const GgufSplit& first,
                   std::string_view first_file, GgufContents& all) {
  const GgufSplit split = read_gguf_split(part, file);
  if (split.count != first.count || split.number != number)
    throw_input_error("{}: is part {} of {} by its metadata, part {} of {} by its name; fetch all parts again", file,
                      split.number + 1, split.count, number + 1, first.count);
  if (split.num_tensors != first.num_tensors)
    throw_input_error("{}: belongs to a model of {} tensors, but {} to one of {}; these are parts of two models", file,
                      split.num_tensors, first_file, first.num_tensors);
  // Later parts need no other metadata; what they have must be the first part's.
  for (const auto& [key, value] : part.metadata.items()) {
    if (key.starts_with(kPrefix) || key == kGgufAlignmentKey) continue;
    const auto it = all.metadata.find(key);
    if (it == all.metadata.end() || *it != value)
      throw_input_error("{}: metadata {}: {}, but {} in {}; these are parts of two models", file, key, text_of(value),
                        it == all.metadata.end() ? "nothing" : text_of(*it), first_file);
  }
  for (auto& [name, tensor] : part.tensors)
    if (!all.tensors.emplace(name, std::move(tensor)).second)
      throw_input_error("{}: tensor {}: is also in another part of the model; fetch all parts again", file, name);
  if (number + 1 == first.count && static_cast<int64_t>(all.tensors.size()) != first.num_tensors)
    throw_input_error("{}: the {} parts have {} tensors together, but metadata {} says {}; fetch all parts again",
                      first_file, first.count, all.tensors.size(), kNumTensors, first.num_tensors);
}

}  // namespace nibble
