// One file of a packed cache: all packed weights of one model, one after the other, each from a line of 64 bytes on, behind
// a header. The header has a checksum of its own and one for each 4 MB of weights.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/mapped_file.h"
#include "base/memory.h"
#include "checkpoint/output_file.h"

namespace nibble {

// Where each weight lies behind the header, and how many bytes all of them have.
struct PackedPlaces {
  explicit PackedPlaces(std::span<const int64_t> sizes);
  std::vector<uint64_t> at;
  uint64_t bytes = 0;
  uint64_t hash;  // of the sizes
};

class PackedFileWriter {
 public:
  // `key` says what the weights are, `places` how large. Throws InputError if the file cannot be made, or does not fit on
  // the disk.
  PackedFileWriter(const std::filesystem::path& path, uint64_t key, PackedPlaces places);

  // These throw RunError, such as for a full disk. The file is there once finish returns; without it, nothing is.
  void append(std::span<const uint8_t> weight);  // the next one
  void finish(uint64_t source_hash);             // which tells of what bytes of the checkpoint the weights were made

 private:
  void pad_to(uint64_t at);
  void put(std::span<const uint8_t> bytes);
  void write_piece();

  const uint64_t key_;
  const PackedPlaces places_;
  OutputFile file_;
  Buffer piece_;
  size_t piece_bytes_ = 0;  // that are in it
  uint64_t done_bytes_ = 0;
  size_t num_weights_ = 0;
  std::vector<uint64_t> hashes_;  // of the pieces that are written
};

class PackedFile {
 public:
  // Opens the file and checks its header. Throws InputError, with the reason, if it is not a whole file of this key and
  // these places.
  PackedFile(const std::filesystem::path& path, uint64_t key, PackedPlaces places);

  uint64_t source_hash() const { return source_hash_; }

  // All weights, at their places. They stay in the page cache, mapped, if they are in huge pages there; else they are read
  // into huge pages of their own. Throws InputError if they are not those that were written; RunError if they cannot be
  // read.
  struct Contents {
    std::shared_ptr<const uint8_t> bytes;
    bool is_mapped;
  };
  using Progress = std::function<void(int64_t done_bytes, int64_t all_bytes)>;
  Contents read(const Progress& progress) const;

 private:
  bool map(const Progress& progress) const;
  void check(std::span<const uint8_t> piece, size_t i) const;

  const PackedPlaces places_;
  const std::shared_ptr<const MappedFile> file_;
  uint64_t source_hash_ = 0;
  uint64_t header_bytes_ = 0;
  std::vector<uint64_t> hashes_;
};

}  // namespace nibble
