#include "backends/cpu/roof.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

namespace nibble {

namespace {

constexpr int64_t kUnit = 4096;  // a worker's share is whole units
#ifdef NIBBLE_SANITIZED          // its reads are no measure of memory
constexpr int64_t kLeastBytes = int64_t{1} << 23, kMostBytes = kLeastBytes, kReading = kLeastBytes;
#else
constexpr int64_t kLeastBytes = int64_t{1} << 28, kMostBytes = int64_t{1} << 31, kReading = int64_t{1} << 30;
#endif

}  // namespace

int64_t read_roof_bytes(int64_t last_level_cache_bytes) {
  const int64_t beyond = last_level_cache_bytes > 0 ? 4 * last_level_cache_bytes : int64_t{1} << 30;
  return std::clamp(beyond, kLeastBytes, kMostBytes);
}

ReadRoof::ReadRoof(WorkerPool& pool, int64_t bytes)
    : bytes_((bytes + kUnit - 1) / kUnit * kUnit), buffer_(static_cast<size_t>(bytes_)) {
  pool.run([&](int worker) {  // untouched pages would all be one page of zeros
    const auto [first, last] = worker_range(bytes_, kUnit, worker, pool.num_threads());
    std::memset(buffer_.data() + first, 1, static_cast<size_t>(last - first));
  });
}

double ReadRoof::measure_gbps(WorkerPool& pool, int64_t bytes) {
  if (bytes == 0) bytes = std::min(kReading, 4 * bytes_);
  const int64_t size = std::min(bytes_, (bytes + kUnit - 1) / kUnit * kUnit);
  const int64_t num_passes = std::max<int64_t>(1, bytes / size);
  if (next_ + size > bytes_) next_ = 0;
  const uint8_t* from = buffer_.data() + next_;
  next_ += size;
  const CpuKernels& kernels =
      *supported_cpu_kernels().front();  // the roof is the machine's, whatever kernels are chosen
  std::atomic<uint64_t> sink{0};
  const auto start = std::chrono::steady_clock::now();
  pool.run([&](int worker) {
    const auto [first, last] = worker_range(size, kUnit, worker, pool.num_threads());
    for (int64_t pass = 0; pass < num_passes; pass++) sink += kernels.read(from + first, last - first);
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(num_passes * size) / seconds.count() / 1e9;
}

}  // namespace nibble
