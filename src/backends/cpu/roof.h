// The read bandwidth of this machine: the roof under which every decode speed is reported. It drifts (by 20 % within
// seconds on virtual machines), so measure it before and after what it is compared with.
#pragma once

#include "backends/cpu/kernels.h"
#include "base/memory.h"
#include "base/worker_pool.h"

namespace nibble {

class ReadRoof {
 public:
#ifdef NIBBLE_SANITIZED  // its reads are no measure of memory, and 1 GB takes seconds to fill
  static constexpr int64_t kDefaultBytes = int64_t{1} << 26;
#else
  // A buffer far larger than any cache; the third-level cache of a large host has 260 MiB.
  static constexpr int64_t kDefaultBytes = int64_t{1} << 30;
#endif

  explicit ReadRoof(WorkerPool& pool, int64_t bytes = kDefaultBytes);

  // Reads the next `bytes` of the buffer (all of it by default) with all workers of `pool`; GB/s, 10^9 bytes. Small
  // pieces between the measurements of something else follow the drift best.
  double measure_gbps(WorkerPool& pool, int64_t bytes = 0);

 private:
  int64_t bytes_, next_ = 0;
  Buffer buffer_;
};

}  // namespace nibble
