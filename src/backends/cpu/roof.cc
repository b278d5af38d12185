#include "backends/cpu/roof.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "backends/cpu/kernels.h"

namespace nibble {

namespace {
constexpr int64_t kUnit = 4096;
}

ReadRoof::ReadRoof(int64_t bytes) : buffer_(static_cast<size_t>((bytes + kUnit - 1) / kUnit * kUnit)) {
  std::memset(buffer_.data(), 1, buffer_.size());  // untouched pages would all be the one page of zeros
}

double ReadRoof::measure(WorkerPool& pool) {
  std::atomic<uint64_t> sum{0};
  const auto start = std::chrono::steady_clock::now();
  pool.run([&](int worker) {
    const auto [first, last] = worker_range(static_cast<int64_t>(buffer_.size()), kUnit, worker, pool.num_threads());
    sum += cpu_kernels().read(buffer_.data() + first, last - first);
  });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return static_cast<double>(buffer_.size()) / elapsed.count() / 1e9;
}

}  // namespace nibble
