#include "base/worker_pool.h"

#include <sched.h>

#include <algorithm>

namespace nibble {

namespace {

// About 50 µs: longer than the gap between two decode steps, shorter than anyone would notice.
constexpr int kSpins = 4096;

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

}  // namespace

WorkerPool::WorkerPool(int num_threads) : num_threads_(std::max(1, num_threads)) {
  for (int worker = 1; worker < num_threads_; worker++) threads_.emplace_back([this, worker] { loop(worker); });
}

WorkerPool::~WorkerPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void WorkerPool::loop(int worker) {
  for (uint32_t seen = 0;; seen++) {
    wait_while(generation_, seen, true);
    if (stop_.load(std::memory_order_relaxed)) return;
    (*work_)(worker);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void WorkerPool::run(const std::function<void(int)>& work) {
  if (num_threads_ > 1) {
    work_ = &work;
    running_.store(num_threads_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }
  work(0);
  for (int left; (left = running_.load(std::memory_order_acquire)) != 0;) wait_while(running_, left, false);
}

void WorkerPool::barrier() {
  const uint32_t seen = barrier_generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == num_threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    barrier_generation_.fetch_add(1, std::memory_order_release);
  } else {
    wait_while(barrier_generation_, seen, false);
  }
}

Range worker_range(int64_t count, int64_t unit, int worker, int num_workers) {
  const int64_t units = (count + unit - 1) / unit;
  return {std::min(count, units * worker / num_workers * unit),
          std::min(count, units * (worker + 1) / num_workers * unit)};
}

int default_num_threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace nibble
