// A fixed set of threads that run one function together, with a barrier cheap enough to stand between the phases of a
// decode step (five a layer). Idle workers spin for a moment, since the next step usually follows at once, then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <thread>
#include <vector>

namespace nibble {

// Workers [first, last), which run on the processors of one NUMA node.
struct WorkerTeam {
  int first, last;
  std::vector<int> processors;  // the system's numbers; not needed where there is one team
};

// At least 1 worker in teams over nodes (Topology::node_processors), in proportion to their processors. A node has none
// if there are too few.
std::vector<WorkerTeam> teams_of_nodes(std::span<const std::vector<int>> node_processors, int num_workers);

class WorkerPool {
 public:
  // `num_threads` workers in all, the calling thread among them; at least 1: one team.
  explicit WorkerPool(int num_threads);
  // The workers of these teams, one after the other. Where there are several, each worker is bound to its team's
  // processors; the calling thread as long as it runs.
  explicit WorkerPool(std::vector<WorkerTeam> teams);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int num_threads() const { return num_threads_; }
  std::span<const WorkerTeam> teams() const { return teams_; }

  // Calls work(worker) once for each worker 0 … num_threads-1, worker 0 on the calling thread, and returns when all are
  // done. `work` must not throw, and must not call run.
  void run(const std::function<void(int worker)>& work);

  // Inside run: returns when every worker has called it. What was written before it is visible after it.
  void barrier() { wait(arrive()); }

  // The same in two parts: what a worker does between them it does while others are still at work.
  uint32_t arrive();
  bool all_arrived(uint32_t arrival) const { return barrier_generation_.load(std::memory_order_acquire) != arrival; }
  void wait(uint32_t arrival);

 private:
  void loop(const WorkerTeam& team, int worker);

  const std::vector<WorkerTeam> teams_;
  const int num_threads_;
  const std::function<void(int)>* work_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};  // one more for each run
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> barrier_generation_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// [first, last) of `count` things for one of `num_workers`, in runs of whole `unit`s and as even as they can be.
struct Range {
  int64_t first, last;
};
Range worker_range(int64_t count, int64_t unit, int worker, int num_workers);
// The ranges of a team's workers, together.
Range team_range(int64_t count, int64_t unit, const WorkerTeam& team, int num_workers);

// How many workers this process may run at once: the processors it is allowed to use.
int default_num_threads();

}  // namespace nibble
