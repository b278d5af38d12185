// The pieces of work that the workers of a pool have in one phase: each begins with its own, and when they are done takes
// over what others of its team have not begun. So nobody waits long for a worker that is slow (a busy neighbour, another kind
// of core) or away.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/worker_pool.h"

namespace nibble {

class PieceQueues {
 public:
  // All of them are empty.
  explicit PieceQueues(std::span<const WorkerTeam> teams);

  // The worker has pieces [first, last), numbers below 2^32. Called when nobody has pieces left of what it had before: by the
  // worker itself, if need be after the others' first take, or by one thread for all before they begin.
  void fill(int worker, Range pieces);

  // A piece that nobody had: the worker's own in their order, then others' from their ends; -1 when there is none.
  int64_t take(int worker);

  // What of its own the worker would take next, unless somebody else takes it over; -1 if there is nothing.
  int64_t peek(int worker) const;

 private:
  struct alignas(64) Queue {
    std::atomic<uint64_t> pieces{0};  // the first in the low half, the end in the high half
    int first_of_team = 0, last_of_team = 0;
  };

  std::vector<Queue> queues_;
};

// Cuts `count` things into pieces, each half of what is left but not below `smallest`: call(first, last) in their order.
template <class Call>
void cut_in_halves(int64_t count, int64_t smallest, const Call& call) {
  for (int64_t first = 0; first < count;) {
    const int64_t left = count - first, half = left / 2 > smallest ? left / 2 : smallest;
    const int64_t last = first + (half < left ? half : left);
    call(first, last);
    first = last;
  }
}

}  // namespace nibble
