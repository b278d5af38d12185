// Packed weights kept in a folder on disk, so that the next start of a model reads them and neither reads nor packs its
// checkpoint. docs/performance.md has what that is worth.
//
// A model's file, KEY.packed, is found by a key: a hash of the backend's layout, of what the model asks for, and of each of
// the checkpoint's files the size and header. It holds the hash of all bytes of these files, and is used only for a
// checkpoint that is known to have them. KEY.seen lists such checkpoints by what the system says of their files
// (FileIdentity), so that they are known without reading; one that is not in it is read and compared first, then added.
// What does not hold (other bytes, a damaged or older file) is packed anew and replaced, with a warning.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "engine/pack_weights.h"
#include "engine/packed_file.h"

namespace nibble {

class PackedCache {
 public:
  // Touches nothing in `folder`, which need not be there. All must outlive it. Throws InputError if the backend's weights
  // cannot be kept.
  PackedCache(std::filesystem::path folder, const Checkpoint& checkpoint, const WeightTable& table, Backend& backend);

  // The model's weights: from the cache; or packed, and then in the cache. Says which in the log. Throws InputError if the
  // folder cannot be made or written, or has too little room, and RunError if writing fails.
  PackedWeights load(const LoadProgress& progress) const;

  // What load would find, from headers alone.
  enum class State : uint8_t { absent, ready, to_be_compared, unusable };
  struct Status {
    State state;
    std::string why;  // unusable
  };
  Status status() const;

  const std::filesystem::path& path() const { return path_; }  // of the file
  uint64_t bytes() const { return places_.bytes; }             // of packed weights

 private:
  // None if the file does not hold these weights. Leaves the checkpoint's hash in `source_hash` if that had to be computed.
  std::optional<PackedWeights> read_if_good(std::optional<uint64_t>& source_hash, const LoadProgress& progress) const;
  PackedWeights pack_and_keep(std::optional<uint64_t> source_hash, const LoadProgress& progress) const;
  PackedWeights adopt(const std::shared_ptr<const uint8_t>& bytes) const;
  uint64_t hash_source() const;
  bool is_changed() const;  // the checkpoint, since this object was made
  std::string seen_line(uint64_t source_hash) const;
  bool is_seen(uint64_t source_hash) const;
  void add_seen(uint64_t source_hash) const;

  const std::filesystem::path folder_;
  const Checkpoint& checkpoint_;
  const WeightTable& table_;
  Backend& backend_;
  const std::vector<FileIdentity> identities_;  // of the checkpoint's files
  const int64_t began_ns_;                      // when they were asked for, in the system's time
  const uint64_t key_;
  const PackedPlaces places_;
  const std::filesystem::path path_, seen_path_;
};

}  // namespace nibble
