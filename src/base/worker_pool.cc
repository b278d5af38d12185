#include "base/worker_pool.h"

#include <sched.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace nibble {

namespace {

// About 50 µs: longer than the gap between two decode steps, shorter than anyone would notice. Sanitizers' builds only test, several
// programs at a time on the same processors, and there each turn is slow.
#ifdef NIBBLE_SANITIZED
constexpr int kSpins = 32;
#else
constexpr int kSpins = 4096;
#endif

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // takes about as long as x86's pause; `yield` does nothing on most cores
#endif
}

// Returns once `value` is no longer `old`: spins first, then gives the processor away (`sleep` false) or sleeps.
template <class T>
void wait_while(const std::atomic<T>& value, T old, bool sleep) {
  for (int i = 0; i < kSpins; i++) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  while (value.load(std::memory_order_acquire) == old) {
    if (sleep) {
      value.wait(old, std::memory_order_acquire);
    } else {
      sched_yield();  // the worker we wait for may need this very processor
    }
  }
}

// Binds the calling thread to processors until the end of its scope. Where the system refuses it is only slower.
class BoundThread {
 public:
  explicit BoundThread(const std::vector<int>& processors) {
#ifdef __linux__
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    for (const int p : processors)
      if (p < CPU_SETSIZE) CPU_SET(p, &wanted);
    is_bound_ =
        sched_getaffinity(0, sizeof before_, &before_) == 0 && sched_setaffinity(0, sizeof wanted, &wanted) == 0;
#endif
  }
  ~BoundThread() {
#ifdef __linux__
    if (is_bound_) sched_setaffinity(0, sizeof before_, &before_);
#endif
  }
  BoundThread(const BoundThread&) = delete;
  BoundThread& operator=(const BoundThread&) = delete;

 private:
#ifdef __linux__
  cpu_set_t before_;
  bool is_bound_ = false;
#endif
};

}  // namespace

std::vector<WorkerTeam> teams_of_nodes(std::span<const std::vector<int>> node_processors, int num_workers) {
  int64_t all = 0, before = 0;
  for (const auto& processors : node_processors) all += static_cast<int64_t>(processors.size());
  std::vector<WorkerTeam> teams;
  int first = 0;
  for (const auto& processors : node_processors) {
    before += static_cast<int64_t>(processors.size());
    const auto last = static_cast<int>((before * num_workers + all / 2) / all);
    if (first < last) teams.push_back({first, last, processors});
    first = last;
  }
  if (teams.empty()) teams.push_back({0, num_workers, {}});
  return teams;
}

WorkerPool::WorkerPool(int num_threads) : WorkerPool({{0, std::max(1, num_threads), {}}}) {}

WorkerPool::WorkerPool(std::vector<WorkerTeam> teams) : teams_(std::move(teams)), num_threads_(teams_.back().last) {
  for (const WorkerTeam& team : teams_)
    for (int worker = std::max(1, team.first); worker < team.last; worker++)
      threads_.emplace_back([this, &team, worker] { loop(team, worker); });
}

WorkerPool::~WorkerPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void WorkerPool::loop(const WorkerTeam& team, int worker) {
  std::optional<BoundThread> bound;
  if (teams_.size() > 1) bound.emplace(team.processors);
  for (uint32_t seen = 0;; seen++) {
    wait_while(generation_, seen, true);
    if (stop_.load(std::memory_order_relaxed)) return;
    (*work_)(worker);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void WorkerPool::run(const std::function<void(int)>& work) {
  std::optional<BoundThread> bound;
  if (teams_.size() > 1) bound.emplace(teams_.front().processors);
  if (num_threads_ > 1) {
    work_ = &work;
    running_.store(num_threads_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }
  work(0);
  for (int left; (left = running_.load(std::memory_order_acquire)) != 0;) wait_while(running_, left, false);
}

uint32_t WorkerPool::arrive() {
  const uint32_t generation = barrier_generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == num_threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    barrier_generation_.fetch_add(1, std::memory_order_release);
  }
  return generation;
}

void WorkerPool::wait(uint32_t arrival) { wait_while(barrier_generation_, arrival, false); }

Range worker_range(int64_t count, int64_t unit, int worker, int num_workers) {
  const int64_t units = (count + unit - 1) / unit;
  return {std::min(count, units * worker / num_workers * unit),
          std::min(count, units * (worker + 1) / num_workers * unit)};
}

Range team_range(int64_t count, int64_t unit, const WorkerTeam& team, int num_workers) {
  return {worker_range(count, unit, team.first, num_workers).first,
          worker_range(count, unit, team.last - 1, num_workers).last};
}

int default_num_threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace nibble
