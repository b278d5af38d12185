// The roof of every decode step: the bandwidth at which all workers together read memory.
#pragma once

#include "base/memory.h"
#include "base/worker_pool.h"

namespace nibble {

class ReadRoof {
 public:
  // Makes and touches a buffer of `bytes`, large enough that caches do not hold it.
  explicit ReadRoof(int64_t bytes = int64_t{1} << 30);

  // GB/s of one pass of all workers over the buffer, each over its share.
  double measure(WorkerPool& pool);

 private:
  Buffer buffer_;
};

}  // namespace nibble
