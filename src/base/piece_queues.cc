#include "base/piece_queues.h"

namespace nibble {

namespace {

uint64_t packed(uint64_t first, uint64_t last) { return first | last << 32; }
uint64_t first_of(uint64_t pieces) { return pieces & 0xffffffff; }
uint64_t last_of(uint64_t pieces) { return pieces >> 32; }

}  // namespace

PieceQueues::PieceQueues(std::span<const WorkerTeam> teams) : queues_(static_cast<size_t>(teams.back().last)) {
  for (const WorkerTeam& team : teams)
    for (int worker = team.first; worker < team.last; worker++) {
      queues_[static_cast<size_t>(worker)].first_of_team = team.first;
      queues_[static_cast<size_t>(worker)].last_of_team = team.last;
    }
}

void PieceQueues::fill(int worker, Range pieces) {
  queues_[static_cast<size_t>(worker)].pieces.store(
      packed(static_cast<uint64_t>(pieces.first), static_cast<uint64_t>(pieces.last)), std::memory_order_release);
}

int64_t PieceQueues::take(int worker) {
  Queue& own = queues_[static_cast<size_t>(worker)];
  for (uint64_t pieces = own.pieces.load(std::memory_order_relaxed); first_of(pieces) < last_of(pieces);)
    if (own.pieces.compare_exchange_weak(pieces, packed(first_of(pieces) + 1, last_of(pieces)),
                                         std::memory_order_relaxed))
      return static_cast<int64_t>(first_of(pieces));
  for (int other = worker + 1, seen = 1; seen < own.last_of_team - own.first_of_team; other++, seen++) {
    if (other >= own.last_of_team) other = own.first_of_team;
    Queue& queue = queues_[static_cast<size_t>(other)];
    for (uint64_t pieces = queue.pieces.load(std::memory_order_acquire); first_of(pieces) < last_of(pieces);)
      if (queue.pieces.compare_exchange_weak(pieces, packed(first_of(pieces), last_of(pieces) - 1),
                                             std::memory_order_acquire))
        return static_cast<int64_t>(last_of(pieces)) - 1;
  }
  return -1;
}

int64_t PieceQueues::peek(int worker) const {
  const uint64_t pieces = queues_[static_cast<size_t>(worker)].pieces.load(std::memory_order_relaxed);
  return first_of(pieces) < last_of(pieces) ? static_cast<int64_t>(first_of(pieces)) : -1;
}

}  // namespace nibble
