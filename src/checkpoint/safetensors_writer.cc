#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

constexpr size_t kHeaderAlignment = 8;  // so that no element straddles its own size in the file

std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

void check_no_weights(const fs::path& folder) try {
  for (const auto& entry : fs::directory_iterator(folder))
    if (const auto name = entry.path().filename().string();
        name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))
      throw_input_error("{}: already has weights ({}); name another folder, or empty this one", folder.string(), name);
} catch (const fs::filesystem_error& error) {
  throw_input_error("{}: cannot be read: {}", folder.string(), error.code().message());
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(fs::path folder, std::vector<TensorSpec> tensors, uint64_t max_shard_bytes)
    : folder_(std::move(folder)), order_(std::move(tensors), folder_.string()) {
  uint64_t bytes = 0;
  for (const auto& [spec, size] : order_.entries()) {
    bytes += size;
    if (dtype_block(spec.dtype).elements != 1)
      throw_input_error("{}: tensor {}: type {} cannot be in a safetensors file; write a GGUF file", folder_.string(),
                        spec.name, dtype_name(spec.dtype));
    if (spec.name == "__metadata__")
      throw_input_error("{}: tensor {}: the format keeps this name for itself; choose another", folder_.string(),
                        spec.name);
  }
  place_tensors(max_shard_bytes);
  check_disk_space(folder_, bytes);
  made_folder_.emplace(folder_);
  check_no_weights(folder_);
  open_shards(1);
}

// Shards are runs of tensors in the order given, so that only one file is open at a time. Inside a shard the widest
// elements come first, which aligns every tensor to its elements: readers may map them.
void SafetensorsWriter::place_tensors(uint64_t max_shard_bytes) {
  const auto& entries = order_.entries();
  places_.resize(entries.size());
  num_shards_ = 0;
  for (size_t first = 0, last = 0; first < entries.size(); first = last, num_shards_++) {
    std::vector<size_t> shard;
    for (uint64_t bytes = 0; last < entries.size(); last++) {
      const uint64_t size = entries[last].size;
      if (!shard.empty() && (bytes > max_shard_bytes || size > max_shard_bytes - bytes)) break;
      bytes += size;
      shard.push_back(last);
    }
    std::ranges::sort(shard, {}, [&](size_t i) { return std::pair(-dtype_block(entries[i].spec.dtype).bytes, i); });
    uint64_t offset = 0;
    for (const size_t i : shard) {
      places_[i] = {num_shards_, offset};
      offset += entries[i].size;
    }
  }
  num_shards_ = std::max<size_t>(num_shards_, 1);  // no tensors: a file with an empty header
}

std::string SafetensorsWriter::shard_name(size_t shard) const {
  return num_shards_ == 1 ? "model.safetensors"
                          : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards_);
}

// With the length before it.
std::string SafetensorsWriter::header(size_t shard) const {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  for (size_t i = 0; i < places_.size(); i++) {
    if (places_[i].shard != shard) continue;
    const auto& [spec, size] = order_.entries()[i];
    header[spec.name] = {{"dtype", dtype_name(spec.dtype)},
                         {"shape", spec.shape},
                         {"data_offsets", {places_[i].offset, places_[i].offset + size}}};
  }
  auto text = header.dump();
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

std::string SafetensorsWriter::index() const {
  uint64_t total_size = 0;
  auto weight_map = nlohmann::json::object();
  for (size_t i = 0; i < places_.size(); i++) {
    total_size += order_.entries()[i].size;
    weight_map[order_.entries()[i].spec.name] = shard_name(places_[i].shard);
  }
  return nlohmann::json{{"metadata", {{"total_size", total_size}}}, {"weight_map", weight_map}}.dump(2) + "\n";
}

// Begins shards until there are `count`; those before the last are complete.
void SafetensorsWriter::open_shards(size_t count) try {
  while (files_.size() < count) {
    if (!files_.empty()) files_.back().close();
    const auto text = header(files_.size());
    files_.emplace_back(folder_ / shard_name(files_.size()));
    files_.back().write(0, as_bytes(text));
    data_begin_ = text.size();
  }
} catch (const nlohmann::json::exception& error) {  // a tensor's name is not UTF-8
  throw_input_error("{}: no header can be written: {}", folder_.string(), error.what());
}

void SafetensorsWriter::append(std::string_view name, std::span<const uint8_t> bytes) {
  const auto [index, offset] = order_.take(name, bytes.size());
  if (bytes.empty()) return;
  open_shards(places_[index].shard + 1);
  files_.back().write(data_begin_ + places_[index].offset + offset, bytes);
}

void SafetensorsWriter::finish() {
  order_.check_complete();
  open_shards(num_shards_);
  files_.back().close();
  // The index gets its name first: should the program end between two names, a reader finds that a shard is missing.
  if (num_shards_ > 1) write_file(folder_ / "model.safetensors.index.json", index());
  for (auto& file : files_) file.commit();
}

}  // namespace nibble
