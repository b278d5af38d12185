#include "engine/packed_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/pieces.h"
#include "base/read_file.h"
#include "checkpoint/output_file.h"

namespace nibble {

namespace {

namespace fs = std::filesystem;

using Clock = std::chrono::steady_clock;

// "1.07 GB in 0.21 s, 5.1 GB/s".
std::string speed_text(uint64_t bytes, Clock::time_point start) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  return fmt::format("{:.2f} GB in {:.2f} s, {:.1f} GB/s", gigabytes, seconds, gigabytes / seconds);
}

uint64_t hash_text(std::string_view text) {
  return hash_bytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

std::vector<FileIdentity> identities_of(const Checkpoint& checkpoint) {
  std::vector<FileIdentity> identities;
  for (const auto& file : checkpoint.files) identities.push_back(file->identity());
  return identities;
}

int64_t system_time_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// All that stands before the first tensor: names, types, shapes, places, and in GGUF the configuration.
std::span<const uint8_t> header_of(const MappedFile& file, const Checkpoint& checkpoint) {
  const std::span<const uint8_t> all = file.bytes();
  size_t size = all.size();
  for (const auto& [name, tensor] : checkpoint.tensors)
    if (tensor.bytes.data() >= all.data() && tensor.bytes.data() < all.data() + all.size())
      size = std::min(size, static_cast<size_t>(tensor.bytes.data() - all.data()));
  return all.first(size);
}

std::string layout_of(const Backend& backend) {
  std::string layout = backend.packed_layout();
  if (layout.empty())
    throw_input_error("backend {} has no weights that could be kept; leave out --packed-cache, or run on cpu",
                      backend.name());
  return layout;
}

// All that decides what packed bytes the checkpoint becomes, but the bytes of its tensors.
uint64_t key_of(const Checkpoint& checkpoint, const WeightTable& table, const Backend& backend) {
  std::string text = layout_of(backend) + "\n";
  for (const auto& file : checkpoint.files)
    text += fmt::format("file {} {:x}\n", file->bytes().size(), hash_bytes(header_of(*file, checkpoint)));
  if (checkpoint.container == Container::safetensors)
    for (const nlohmann::json* config : {&checkpoint.config, &checkpoint.hf_quant_config})
      text += config->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (const WeightEntry& entry : table.entries()) {
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
      const MatrixRequest& r = matrix->request;
      text += fmt::format("{}|{}|{}|{}x{}x{}|{}|{}|{}|{}|{}|{}|{}|{}\n", r.name.hf, r.name.gguf, r.is_experts, r.E, r.N,
                          r.K, r.gguf_permuted_heads, r.heads.alone.hf, r.heads.alone.gguf, r.heads.head_rows,
                          r.heads.first_row, r.heads.transposed, format_name(matrix->info.format), matrix->info.source);
    } else {
      const auto& r = std::get<VectorRequest>(entry.what);
      text +=
          fmt::format("{}|{}|{}|{}x{}|{}\n", r.name.hf, r.name.gguf, r.is_experts, r.E, r.size, r.gguf_permuted_heads);
    }
  }
  return hash_text(text);
}

std::vector<int64_t> packed_sizes(const WeightTable& table, const Backend& backend) {
  std::vector<int64_t> sizes;
  for (const WeightEntry& entry : table.entries()) {
    const auto* matrix = std::get_if<MatrixEntry>(&entry.what);
    sizes.push_back(matrix == nullptr
                        ? entry.bytes()
                        : backend.plan_pack(matrix->info.format, matrix->info.E, matrix->info.N, matrix->info.K).bytes);
  }
  return sizes;
}

// What only one process at a time may do in a folder. The folder itself is locked, so that no file stays of it.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder) : fd_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    error_ = fd_ >= 0 && flock(fd_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  }
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  bool is_mine() const { return error_ == 0; }
  bool is_anothers() const { return error_ == EWOULDBLOCK; }
  const char* why() const { return std::strerror(error_); }  // it is nobody's

 private:
  int fd_, error_;
};

}  // namespace

PackedCache::PackedCache(fs::path folder, const Checkpoint& checkpoint, const WeightTable& table, Backend& backend)
    : folder_(std::move(folder)),
      checkpoint_(checkpoint),
      table_(table),
      backend_(backend),
      identities_(identities_of(checkpoint)),
      began_ns_(system_time_ns()),
      key_(key_of(checkpoint, table, backend)),
      places_(packed_sizes(table, backend)),
      path_(folder_ / fmt::format("{:016x}.packed", key_)),
      seen_path_(folder_ / fmt::format("{:016x}.seen", key_)) {
  std::error_code error;
  if (fs::exists(folder_, error) && !fs::is_directory(folder_, error))
    throw_input_error("{}: is no folder, which packed weights are kept in", folder_.string());
}

PackedWeights PackedCache::load(const LoadProgress& progress) const {
  if (checkpoint_.files.empty()) {
    log_info("{}: random weights are not kept in {}", checkpoint_.path.string(), folder_.string());
    return pack_weights(table_, backend_, progress);
  }
  const MadeFolder made(folder_);
  std::optional<uint64_t> source_hash;
  if (is_there(path_))
    if (auto weights = read_if_good(source_hash, progress)) return std::move(*weights);
  const FolderLock lock(folder_);
  if (lock.is_mine()) return pack_and_keep(source_hash, progress);
  if (!lock.is_anothers())
    throw_input_error("{}: cannot be locked: {}; name a folder that can be written, on a disk of this machine",
                      folder_.string(), lock.why());
  log_warning("{}: another process is writing there; the weights are loaded without it", folder_.string());
  return pack_weights(table_, backend_, progress);
}

std::optional<PackedWeights> PackedCache::read_if_good(std::optional<uint64_t>& source_hash,
                                                       const LoadProgress& progress) const try {
  const auto start = Clock::now();
  const PackedFile file(path_, key_, places_);
  const bool is_known = is_seen(file.source_hash());
  if (!is_known) source_hash = hash_source();
  if (source_hash.value_or(file.source_hash()) != file.source_hash()) {
    log_warning("{}: was made of other weights than {} has now; they are packed anew", path_.string(),
                checkpoint_.path.string());
    return std::nullopt;
  }
  const PackedFile::Contents contents = file.read(progress);
  PackedWeights weights = adopt(contents.bytes);
  log_info("{}: packed weights {} {} ({}{})", checkpoint_.path.string(),
           contents.is_mapped ? "mapped from" : "read from", path_.string(), speed_text(places_.bytes, start),
           is_known ? "" : ", comparing the checkpoint's bytes included");
  if (!is_known)
    if (const FolderLock lock(folder_); lock.is_mine()) add_seen(file.source_hash());
  return weights;
} catch (const std::runtime_error& error) {
  log_warning("{}; the weights are packed anew", error.what());
  return std::nullopt;
}

PackedWeights PackedCache::pack_and_keep(std::optional<uint64_t> source_hash, const LoadProgress& progress) const {
  const auto start = Clock::now();
  PackedFileWriter writer(path_, key_, places_);
  if (!source_hash) source_hash = hash_source();
  PackedWeights weights = pack_weights(table_, backend_, progress,
                                       [&](const PackedWeight& weight) { writer.append(weight.packed_bytes()); });
  if (is_changed()) {
    log_warning("{}: was changed while it was read; its packed weights are not kept", checkpoint_.path.string());
    return weights;
  }
  writer.finish(*source_hash);
  log_info("{}: weights packed, and kept in {} ({})", checkpoint_.path.string(), path_.string(),
           speed_text(places_.bytes, start));
  add_seen(*source_hash);
  return weights;
}

PackedCache::Status PackedCache::status() const try {
  if (!is_there(path_)) return {State::absent, {}};
  const PackedFile file(path_, key_, places_);
  return {is_seen(file.source_hash()) ? State::ready : State::to_be_compared, {}};
} catch (const std::runtime_error& error) {
  return {State::unusable, error.what()};
}

PackedWeights PackedCache::adopt(const std::shared_ptr<const uint8_t>& bytes) const {
  PackedWeights weights;
  for (const WeightEntry& entry : table_.entries()) {
    const uint8_t* at = bytes.get() + places_.at[weights.size()];
    if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
      const MatrixInfo& info = matrix->info;
      weights.push_back(backend_.adopt(info.format, info.E, info.N, info.K, {bytes, at}));
    } else {
      weights.push_back(backend_.pack_vector(
          {reinterpret_cast<const float*>(at), static_cast<size_t>(entry.bytes()) / sizeof(float)}));
    }
  }
  return weights;
}

uint64_t PackedCache::hash_source() const {
  constexpr size_t kPieceBytes = size_t{4} << 20;
  struct Piece {
    const MappedFile* file;
    std::span<const uint8_t> part;
  };
  std::vector<Piece> pieces;
  for (const auto& file : checkpoint_.files)
    for (size_t at = 0; at < file->bytes().size(); at += kPieceBytes)
      pieces.push_back({file.get(), file->bytes().subspan(at, std::min(kPieceBytes, file->bytes().size() - at))});
  std::vector<Buffer> rooms;
  for (size_t i = 0; i < kReaders; i++) rooms.emplace_back(kPieceBytes + MappedFile::kReadUnit);
  std::vector<uint64_t> hashes(pieces.size());
  for_each_piece(pieces.size(), kReaders, [&](size_t i, size_t thread) {
    pieces[i].file->read(pieces[i].part, rooms[thread].data());
    hashes[i] = hash_bytes({rooms[thread].data(), pieces[i].part.size()});
  });
  return hash_bytes({reinterpret_cast<const uint8_t*>(hashes.data()), hashes.size() * sizeof(uint64_t)});
}

bool PackedCache::is_changed() const { return identities_of(checkpoint_) != identities_; }

// Begins with what is compared; the path is for people.
std::string PackedCache::seen_line(uint64_t source_hash) const {
  uint64_t hash = source_hash;
  for (const FileIdentity& identity : identities_)
    hash = hash_text(fmt::format("{:x} {} {} {} {} {}", hash, identity.device, identity.inode, identity.size,
                                 identity.mtime_ns, identity.ctime_ns));
  return fmt::format("{:016x} ", hash);
}

bool PackedCache::is_seen(uint64_t source_hash) const {
  return is_there(seen_path_) &&
         ("\n" + read_file(seen_path_)).find("\n" + seen_line(source_hash)) != std::string::npos;
}

void PackedCache::add_seen(uint64_t source_hash) const {
  // A change within the clock's last tick would leave the same times. File systems have ticks of up to 2 seconds.
  constexpr int64_t kTick = 2'000'000'000;
  const bool is_old = std::ranges::all_of(
      identities_, [&](const FileIdentity& identity) { return identity.ctime_ns < began_ns_ - kTick; });
  if (!is_old || is_changed()) return;
  constexpr size_t kMaxBytes = 16384;  // what is older is forgotten, and compared again if it comes back
  try {
    std::string text = seen_line(source_hash) + fs::absolute(checkpoint_.path).string() + "\n";
    if (is_there(seen_path_)) text += read_file(seen_path_);
    if (text.size() > kMaxBytes) text.resize(text.rfind('\n', kMaxBytes) + 1);
    write_file(seen_path_, text);
  } catch (const std::runtime_error& error) {
    log_warning("{}; the checkpoint's bytes will be compared again the next time", error.what());
  }
}

}  // namespace nibble
