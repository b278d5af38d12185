#include "engine/packed_file.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/pieces.h"

namespace nibble {

namespace {

constexpr uint64_t kMagic = 0x4B43415042424E00;  // "\0NBBPACK"
constexpr uint64_t kFileVersion = 1;
constexpr uint64_t kLine = 64;
constexpr uint64_t kHugePage = uint64_t{2} << 20;

// Of one read and one checksum. Two threads that touch fresh memory in the same huge page wait for each other: pieces of
// 1 MB were read at 8 GB/s from the page cache, pieces of 2 MB and more at 11.5 (Zen 4, 2 threads).
constexpr uint64_t kPieceBytes = uint64_t{4} << 20;

// At the beginning of the file; the checksums of the pieces follow, then that of all before it, then zeros up to a
// huge page: pieces that are written on such are in such in the page cache.
struct Header {
  uint64_t magic, file_version, key, source_hash, sizes_hash, bytes;
};

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
uint64_t num_pieces(uint64_t bytes) { return (bytes + kPieceBytes - 1) / kPieceBytes; }
uint64_t header_bytes(uint64_t bytes) {
  return round_up(sizeof(Header) + (num_pieces(bytes) + 1) * sizeof(uint64_t), kHugePage);
}

template <class T>
std::span<const uint8_t> as_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

// Pieces that change places are noticed.
uint64_t piece_hash(std::span<const uint8_t> piece, size_t i) { return hash_bytes(piece, i + 1); }

// Works on all pieces of `bytes`, several at once, and tells `progress` of them one by one.
void for_each_piece_of(std::span<const uint8_t> bytes, const PackedFile::Progress& progress,
                       const std::function<void(std::span<const uint8_t> piece, size_t i)>& work) {
  std::mutex mutex;
  size_t done = 0;
  for_each_piece(num_pieces(bytes.size()), kReaders, [&](size_t i, size_t) {
    const size_t at = i * kPieceBytes, size = std::min<size_t>(kPieceBytes, bytes.size() - at);
    work(bytes.subspan(at, size), i);
    const std::lock_guard lock(mutex);
    done += size;
    if (progress) progress(static_cast<int64_t>(done), static_cast<int64_t>(bytes.size()));
  });
}

}  // namespace

PackedPlaces::PackedPlaces(std::span<const int64_t> sizes) {
  for (const int64_t size : sizes) {
    at.push_back(bytes);
    bytes = round_up(bytes + static_cast<uint64_t>(size), kLine);
  }
  bytes += Buffer::kSlack;
  hash = hash_bytes({reinterpret_cast<const uint8_t*>(sizes.data()), sizes.size_bytes()});
}

PackedFileWriter::PackedFileWriter(const std::filesystem::path& path, uint64_t key, PackedPlaces places)
    : key_(key), places_(std::move(places)), file_(path), piece_(kPieceBytes) {
  check_disk_space(path.parent_path(), header_bytes(places_.bytes) + places_.bytes);
}

void PackedFileWriter::append(std::span<const uint8_t> weight) {
  pad_to(places_.at[num_weights_++]);
  put(weight);
}

void PackedFileWriter::pad_to(uint64_t at) {
  static constexpr uint8_t kZeros[kLine + Buffer::kSlack] = {};
  put({kZeros, static_cast<size_t>(at - done_bytes_)});
}

void PackedFileWriter::put(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size(), kPieceBytes - piece_bytes_);
    std::memcpy(piece_.data() + piece_bytes_, bytes.data(), size);
    piece_bytes_ += size;
    done_bytes_ += size;
    bytes = bytes.subspan(size);
    if (piece_bytes_ == kPieceBytes) write_piece();
  }
}

void PackedFileWriter::write_piece() {
  const std::span<const uint8_t> piece(piece_.data(), piece_bytes_);
  file_.write(header_bytes(places_.bytes) + hashes_.size() * kPieceBytes, piece);
  hashes_.push_back(piece_hash(piece, hashes_.size()));
  piece_bytes_ = 0;
}

void PackedFileWriter::finish(uint64_t source_hash) {
  pad_to(places_.bytes);
  if (piece_bytes_ > 0) write_piece();
  const Header header{.magic = kMagic,
                      .file_version = kFileVersion,
                      .key = key_,
                      .source_hash = source_hash,
                      .sizes_hash = places_.hash,
                      .bytes = places_.bytes};
  std::vector<uint64_t> words(header_bytes(places_.bytes) / sizeof(uint64_t));
  std::memcpy(words.data(), &header, sizeof header);
  const auto end = std::ranges::copy(hashes_, words.begin() + sizeof header / sizeof(uint64_t)).out;
  *end = hash_bytes(as_bytes(std::vector(words.begin(), end)));
  file_.write(0, as_bytes(words));
  file_.commit();
}

PackedFile::PackedFile(const std::filesystem::path& path, uint64_t key, PackedPlaces places)
    : places_(std::move(places)),
      file_(std::make_shared<const MappedFile>(path)),
      header_bytes_(header_bytes(places_.bytes)) {
  file_->want_huge_pages();  // before any of it is touched: what the system reads ahead then is in small pages
  const std::span<const uint8_t> all = file_->bytes();
  const auto refuse = [&](std::string_view what, uint64_t there, uint64_t expected) {
    throw_input_error("{}: {} is {}, {} expected", path.string(), what, there, expected);
  };
  Header header{};
  if (all.size() < sizeof header) refuse("its size in bytes", all.size(), header_bytes_ + places_.bytes);
  std::memcpy(&header, all.data(), sizeof header);
  if (header.magic != kMagic) throw_input_error("{}: is no file of packed weights", path.string());
  if (header.file_version != kFileVersion) refuse("its version", header.file_version, kFileVersion);
  if (header.key != key) throw_input_error("{}: holds another model's weights than its name says", path.string());
  if (header.bytes != places_.bytes) refuse("the weights' size", header.bytes, places_.bytes);
  if (header.sizes_hash != places_.hash) throw_input_error("{}: its weights have other sizes", path.string());
  if (all.size() != header_bytes_ + places_.bytes)
    refuse("its size in bytes", all.size(), header_bytes_ + places_.bytes);
  const size_t hashed = sizeof header + num_pieces(places_.bytes) * sizeof(uint64_t);
  uint64_t hash = 0;
  std::memcpy(&hash, all.data() + hashed, sizeof hash);
  if (hash != hash_bytes(all.first(hashed))) throw_input_error("{}: its header is damaged", path.string());
  source_hash_ = header.source_hash;
  hashes_.resize(num_pieces(places_.bytes));
  std::memcpy(hashes_.data(), all.data() + sizeof header, hashes_.size() * sizeof(uint64_t));
}

void PackedFile::check(std::span<const uint8_t> piece, size_t i) const {
  if (piece_hash(piece, i) != hashes_[i])
    throw_input_error("{}: {} bytes from byte {} on are not those that were written", file_->path().string(),
                      piece.size(), header_bytes_ + i * kPieceBytes);
}

// False if the weights are not in huge pages in the page cache.
bool PackedFile::map(const Progress& progress) const {
  const std::span<const uint8_t> weights = file_->bytes().subspan(header_bytes_);
  const auto is_huge = [&](std::span<const uint8_t> part) {
    return static_cast<double>(file_->huge_bytes()) > 0.9 * static_cast<double>(part.size());
  };
  // Whether it is worth trying shows in a few pages.
  const std::span<const uint8_t> first = weights.first(std::min<size_t>(weights.size(), 4 * kPieceBytes));
  if (!file_->populate(first) || !is_huge(first)) return false;
  for_each_piece_of(weights, progress, [&](std::span<const uint8_t> piece, size_t i) {
    if (!file_->populate(piece)) throw_run_error("{}: cannot be read", file_->path().string());
    check(piece, i);
  });
  return is_huge(weights);
}

PackedFile::Contents PackedFile::read(const Progress& progress) const {
  const std::span<const uint8_t> weights = file_->bytes().subspan(header_bytes_);
  if (map(progress)) return {{file_, weights.data()}, true};
  constexpr size_t kUnit = MappedFile::kReadUnit;
  auto buffer = std::make_shared<const Buffer>(MappedFile::read_room(weights.size()) + kUnit);
  uint8_t* to = buffer->data();
  to += (kUnit - reinterpret_cast<uintptr_t>(to) % kUnit) % kUnit;
  for_each_piece_of(weights, progress, [&](std::span<const uint8_t> piece, size_t i) {
    uint8_t* const there = to + i * kPieceBytes;
    file_->read(piece, there);
    check({there, piece.size()}, i);
  });
  return {{buffer, to}, false};
}

}  // namespace nibble
