// The read bandwidth of this machine: the roof under which every decode speed is reported. It drifts (by 20 % within
// seconds on virtual machines), so measure it before and after what it is compared with.
#pragma once

#include "backends/cpu/kernels.h"
#include "base/memory.h"
#include "base/worker_pool.h"

namespace nibble {

// Bytes of a buffer whose reads are memory's, not the caches': four times what all last-level caches hold, from 256 MB to
// 2 GB, and 1 GB where that is unknown (0). Where they hold 32 and 300 MiB, larger buffers are read no slower. A gigabyte
// more takes a virtual machine up to two seconds to fill.
int64_t read_roof_bytes(int64_t last_level_cache_bytes);

class ReadRoof {
 public:
  ReadRoof(WorkerPool& pool, int64_t bytes);

  // Reads the next `bytes` of the buffer, which starts again at its end, with all workers of `pool`; GB/s, 10^9 bytes. By
  // default a gigabyte, or four times a smaller buffer. Small pieces between the measurements of something else follow the drift best.
  double measure_gbps(WorkerPool& pool, int64_t bytes = 0);

 private:
  int64_t bytes_, next_ = 0;
  Buffer buffer_;
};

}  // namespace nibble
