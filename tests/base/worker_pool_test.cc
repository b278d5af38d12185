#include "base/worker_pool.h"

#include <atomic>
#include <chrono>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(WorkerPool, RunsEachWorkerOncePerRun) {
  for (int num_threads : {1, 2, 5}) {
    WorkerPool pool(num_threads);
    std::vector<int> calls(num_threads, 0);
    for (int run = 0; run < 100; run++) pool.run([&](int worker) { calls[worker]++; });
    EXPECT_EQ(calls, std::vector<int>(num_threads, 100));
  }
}

TEST(WorkerPool, WhatWasWrittenBeforeABarrierIsSeenAfterIt) {
  constexpr int kThreads = 3, kPhases = 500;
  WorkerPool pool(kThreads);
  std::vector<int> phase_of(kThreads, 0);  // plain ints: the thread sanitizer finds a barrier that orders nothing
  std::atomic<int> faults{0};
  pool.run([&](int worker) {
    for (int phase = 1; phase <= kPhases; phase++) {
      phase_of[worker] = phase;
      pool.barrier();
      for (int other : phase_of) faults += other != phase;
      const uint32_t arrival = pool.arrive();  // the same barrier in two parts
      while (phase % 2 == 0 && !pool.all_arrived(arrival)) std::this_thread::yield();
      pool.wait(arrival);
      faults += !pool.all_arrived(arrival);
    }
  });
  EXPECT_EQ(faults, 0);
}

TEST(WorkerPool, ReturnsAfterSleepingWorkersWake) {
  WorkerPool pool(2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long enough for the worker to fall asleep
  std::atomic<int> calls{0};
  pool.run([&](int) { calls++; });
  EXPECT_EQ(calls, 2);
}

// {first, last} of each team.
std::vector<std::vector<int>> teams(const std::vector<std::vector<int>>& node_processors, int num_workers) {
  std::vector<std::vector<int>> list;
  for (const WorkerTeam& team : teams_of_nodes(node_processors, num_workers)) list.push_back({team.first, team.last});
  return list;
}

TEST(WorkerTeams, AreInProportionToProcessors) {
  using Lists = std::vector<std::vector<int>>;
  EXPECT_EQ(teams({}, 3), (Lists{{0, 3}}));
  EXPECT_EQ(teams({{0, 1}}, 3), (Lists{{0, 3}}));
  const Lists two = {{0, 1, 2, 3}, {4, 5, 6, 7}};
  EXPECT_EQ(teams(two, 1), (Lists{{0, 1}}));
  EXPECT_EQ(teams(two, 2), (Lists{{0, 1}, {1, 2}}));
  EXPECT_EQ(teams(two, 5), (Lists{{0, 3}, {3, 5}}));
  EXPECT_EQ(teams(two, 8), (Lists{{0, 4}, {4, 8}}));
  EXPECT_EQ(teams(two, 16), (Lists{{0, 8}, {8, 16}}));
  EXPECT_EQ(teams({{0}, {1, 2, 3}}, 4), (Lists{{0, 1}, {1, 4}}));
  EXPECT_EQ(teams({{0}, {1, 2, 3, 4, 5}}, 2), (Lists{{0, 2}}));
  EXPECT_EQ(teams({{0, 8}, {2, 10}, {4, 12}, {6, 14}}, 6), (Lists{{0, 2}, {2, 3}, {3, 5}, {5, 6}}));
  EXPECT_EQ(teams_of_nodes(two, 8)[1].processors, two[1]);
}

TEST(WorkerTeams, HaveTheRangesOfTheirWorkers) {
  const WorkerTeam first{0, 2, {}}, second{2, 5, {}};
  for (int64_t count : {0, 3, 16, 100, 576}) {
    EXPECT_EQ(team_range(count, 16, first, 5).last, worker_range(count, 16, 1, 5).last);
    EXPECT_EQ(team_range(count, 16, second, 5).first, worker_range(count, 16, 2, 5).first);
    EXPECT_EQ(team_range(count, 16, second, 5).last, count);
  }
}

#ifdef __linux__
std::vector<int> own_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {};
  std::vector<int> processors;
  for (int p = 0; p < CPU_SETSIZE; p++)
    if (CPU_ISSET(p, &set)) processors.push_back(p);
  return processors;
}

TEST(WorkerTeams, RunOnTheirProcessors) {
  const std::vector<int> all = own_processors();
  if (all.size() < 2) GTEST_SKIP() << "one processor";
  const std::vector<int> a = {all[0]}, b = {all[1]};
  WorkerPool pool({{0, 1, a}, {1, 3, b}});
  EXPECT_EQ(pool.num_threads(), 3);
  std::vector<std::vector<int>> seen(3);
  pool.run([&](int worker) { seen[static_cast<size_t>(worker)] = own_processors(); });
  EXPECT_EQ(seen, (std::vector<std::vector<int>>{a, b, b}));
  EXPECT_EQ(own_processors(), all);  // the caller's are as before

  WorkerPool one({{0, 2, a}});
  seen.resize(2);
  one.run([&](int worker) { seen[static_cast<size_t>(worker)] = own_processors(); });
  EXPECT_EQ(seen, (std::vector<std::vector<int>>{all, all}));  // nothing is bound where there is one team
}
#endif

TEST(WorkerRange, CoversEverythingOnceInWholeUnits) {
  for (int64_t count : {0, 1, 15, 16, 17, 100, 576}) {
    for (int num_workers : {1, 2, 3, 7}) {
      int64_t next = 0;
      for (int worker = 0; worker < num_workers; worker++) {
        const auto [first, last] = worker_range(count, 16, worker, num_workers);
        EXPECT_EQ(first, next);
        EXPECT_TRUE(last % 16 == 0 || last == count);
        next = last;
      }
      EXPECT_EQ(next, count);
    }
  }
}

}  // namespace
}  // namespace nibble
