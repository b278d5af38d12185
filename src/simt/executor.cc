#include "simt/executor.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>

#include "base/error.h"
#include "base/worker_pool.h"
#include "simt/sanitizers.h"
#include "simt/threadgroup_runner.h"

namespace nibble::simt {

namespace {

// Threads of a launch below which waking the other workers costs more than they take over: the case lists of ops take 2.2 s on
// one OS thread, 3.9 s on two of a busy machine. For ThreadSanitizer a launch must be spread however small it is.
constexpr uint64_t kSmallLaunch = 4096;

// The threadgroup that comes at `turn`. Shuffled: a step that has no divisor in common with their number meets each once.
uint64_t threadgroup_at(uint64_t turn, uint64_t num_threadgroups, LaneOrder order) {
  if (order == LaneOrder::ascending) return turn;
  if (order == LaneOrder::descending) return num_threadgroups - 1 - turn;
  constexpr uint64_t steps[] = {1000003, 611953, 1};
  for (const uint64_t step : steps)
    if (std::gcd(step, num_threadgroups) == 1) return (turn * step + num_threadgroups / 2) % num_threadgroups;
  return turn;
}

}  // namespace

void launch(const Launch& how, Kernel kernel, const void* context) {
  const uint64_t num_threads = how.threads.count();
  if (num_threads == 0 || num_threads > kMaxThreadgroupThreads)
    throw_input_error("a threadgroup of {} threads, 1 to {} expected", num_threads, kMaxThreadgroupThreads);
  uint64_t shared_bytes = 0;
  for (const uint32_t bytes : how.threadgroup_bytes) shared_bytes += bytes;
  if (shared_bytes > kMaxThreadgroupBytes)
    throw_input_error("{} bytes of threadgroup memory, {} at most", shared_bytes, kMaxThreadgroupBytes);
  const uint64_t num_threadgroups = how.threadgroups.count();
  const uint64_t columns = how.threadgroups.x, rows = how.threadgroups.y;

  const bool is_small = !sanitizers::kThread && num_threads * num_threadgroups < kSmallLaunch;
  WorkerPool* workers = is_small || num_threadgroups < 2 ? nullptr : how.workers;

  // Each worker's first turn is its own, so that each has one: races between threadgroups then show in every run.
  std::atomic<uint64_t> next_turn{workers == nullptr ? 1 : static_cast<uint64_t>(workers->num_threads())};
  std::mutex mutex;
  std::string fault;
  const auto run_some = [&](int worker) {
    ThreadgroupRunner& runner = ThreadgroupRunner::of_this_thread();
    // Relaxed: taking a turn must not order what the kernels of two threads do.
    const auto next = [&] { return next_turn.fetch_add(1, std::memory_order_relaxed); };
    for (uint64_t turn = static_cast<uint64_t>(worker); turn < num_threadgroups; turn = next()) {
      const uint64_t t = threadgroup_at(turn, num_threadgroups, how.order);
      const Size3 position{static_cast<uint32_t>(t % columns), static_cast<uint32_t>(t / columns % rows),
                           static_cast<uint32_t>(t / columns / rows)};
      const std::string found = runner.run(how, position, kernel, context);
      if (found.empty()) continue;
      const std::lock_guard lock(mutex);
      if (fault.empty()) fault = fmt::format("{}, threadgroup ({}, {}, {})", found, position.x, position.y, position.z);
      next_turn.store(num_threadgroups, std::memory_order_relaxed);
    }
  };
  if (workers != nullptr) {
    workers->run(run_some);
  } else {
    run_some(0);
  }
  if (!fault.empty()) throw InputError(fault);
}

}  // namespace nibble::simt
