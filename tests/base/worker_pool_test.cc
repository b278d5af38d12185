#include "base/worker_pool.h"

#include <atomic>
#include <chrono>
#include <vector>

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
      pool.barrier();
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
