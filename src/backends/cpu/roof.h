// The read bandwidth of this machine: the roof under which every decode speed is reported. It drifts (by 20 % within
// seconds on virtual machines), so measure it before and after what it is compared with.
#pragma once

#include "backends/cpu/kernels.h"
#include "base/memory.h"
#include "base/worker_pool.h"

namespace nibble {

class ReadRoof {
 public:
  // A buffer far larger than any cache; the third-level cache of a large host has 260 MiB.
  static constexpr int64_t kDefaultBytes = int64_t{1} << 30;

  explicit ReadRoof(WorkerPool& pool, int64_t bytes = kDefaultBytes);

  // Reads the buffer once with all workers of `pool` and returns the speed in GB/s (10^9 bytes).
  double measure_gbps(WorkerPool& pool, const CpuKernels& kernels = cpu_kernels());

 private:
  int64_t bytes_;
  Buffer buffer_;
};

}  // namespace nibble
