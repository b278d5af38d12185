// Writes the tensors of a safetensors folder: model.safetensors, or shards with an index if they are too many for one
// file. config.json and the rest are the caller's (write_file).
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/output_file.h"
#include "checkpoint/write_order.h"

namespace nibble {

// The file size at which Hugging Face's own tools begin a new one.
inline constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

// Nothing has its name before finish(): a writer that is given up leaves no files, and no empty folders that it made.
class SafetensorsWriter {
 public:
  // Creates the folder if need be. A shard has at most `max_shard_bytes` of data, or one tensor. Throws InputError if
  // the folder already has weights, which would then be mixed with these, if all the tensors are more than the disk has
  // room for, or for a type that safetensors does not have.
  SafetensorsWriter(std::filesystem::path folder, std::vector<TensorSpec> tensors,
                    uint64_t max_shard_bytes = kDefaultShardBytes);

  // The next bytes of tensor `name`; all of a tensor's bytes come, in any number of calls, before the next tensor's.
  void append(std::string_view name, std::span<const uint8_t> bytes);

  // Throws InputError if bytes are missing.
  void finish();

 private:
  struct Place {
    size_t shard;
    uint64_t offset;  // in the shard's data
  };

  void place_tensors(uint64_t max_shard_bytes);
  std::string shard_name(size_t shard) const;
  std::string header(size_t shard) const;
  std::string index() const;
  void open_shards(size_t count);

  std::filesystem::path folder_;
  WriteOrder order_;
  std::vector<Place> places_;  // of each tensor of order_
  size_t num_shards_ = 1;
  std::optional<MadeFolder> made_folder_;  // goes after the files
  std::deque<OutputFile> files_;           // of the shards begun so far; only the last is open
  uint64_t data_begin_ = 0;                // in the last of them
};

}  // namespace nibble
