#include "base/file_bandwidth.h"

#include <algorithm>
#include <chrono>

#include "base/memory.h"
#include "base/pieces.h"

namespace nibble {

std::vector<Stretch> stretches_of(std::span<const std::shared_ptr<const MappedFile>> files) {
  std::vector<Stretch> all;
  for (const auto& file : files) {
    const std::span<const uint8_t> bytes = file->bytes();
    for (size_t at = 0; at < bytes.size(); at += kStretchBytes)
      all.push_back({file.get(), bytes.subspan(at, std::min(kStretchBytes, bytes.size() - at))});
  }
  if (all.size() <= kMostStretches) return all;
  std::vector<Stretch> some;
  for (size_t i = 0; i < kMostStretches; i++) some.push_back(all[i * all.size() / kMostStretches]);
  return some;
}

double measure_file_gbps(std::span<const std::shared_ptr<const MappedFile>> files) {
  constexpr size_t kReadBytes = size_t{4} << 20, kUnit = MappedFile::kReadUnit;
  const std::vector<Stretch> stretches = stretches_of(files);
  size_t all = 0;
  for (const Stretch& stretch : stretches) all += stretch.bytes.size();
  if (all == 0) return 0;
  const auto start = std::chrono::steady_clock::now();
  for_each_piece(stretches.size(), kReaders, [&](size_t i, size_t) {
    const auto [file, bytes] = stretches[i];
    const Buffer memory(MappedFile::read_room(bytes.size()) + kUnit);
    uint8_t* const to = memory.data() + (kUnit - reinterpret_cast<uintptr_t>(memory.data()) % kUnit) % kUnit;
    for (size_t at = 0; at < bytes.size(); at += kReadBytes)
      file->read(bytes.subspan(at, std::min(kReadBytes, bytes.size() - at)), to + at);
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(all) / seconds.count() / 1e9;
}

}  // namespace nibble
