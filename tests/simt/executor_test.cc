// The executor without a shader: kernels as lambdas.
#include <algorithm>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "base/worker_pool.h"
#include "simt/collectives.h"
#include "simt/kernel_runs.h"

namespace nibble::simt {
namespace {

uint32_t global_index() {
  const Lane& lane = *current_lane;
  const Threadgroup& t = *lane.threadgroup;
  const uint32_t group = (t.position.z * t.threadgroups.y + t.position.y) * t.threadgroups.x + t.position.x;
  return group * static_cast<uint32_t>(t.threads.count()) + lane.index;
}

TEST(SimtExecutor, RunsEachThreadOnce) {
  WorkerPool pool(2);
  for (LaneOrder order : kLaneOrders) {
    for (WorkerPool* workers : {static_cast<WorkerPool*>(nullptr), &pool}) {
      for (const Size3 threads : {Size3{1}, Size3{33}, Size3{5, 3, 2}, Size3{32, 32}}) {
        std::vector<int> runs(threads.count() * 30);
        launch({.threadgroups = {5, 3, 2}, .threads = threads, .workers = workers, .order = order},
               [&] { runs[global_index()]++; });
        EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
      }
    }
  }
}

TEST(SimtExecutor, NoThreadgroups) {
  bool has_run = false;
  launch({.threadgroups = {0}, .threads = {32}}, [&] { has_run = true; });
  EXPECT_FALSE(has_run);
}

#ifndef NIBBLE_TEST_TSAN  // for which lanes have no order
TEST(SimtExecutor, LanesGoInTheirOrder) {
  const auto indices_in = [](LaneOrder order) {
    std::vector<uint32_t> indices;
    launch({.threadgroups = {2}, .threads = {80}, .order = order}, [&] { indices.push_back(global_index()); });
    return indices;
  };
  std::vector<uint32_t> wanted(160);
  for (uint32_t i = 0; i < 160; i++) wanted[i] = i;
  EXPECT_EQ(indices_in(LaneOrder::ascending), wanted);
  EXPECT_NE(indices_in(LaneOrder::shuffled), wanted);
  EXPECT_EQ(indices_in(LaneOrder::shuffled), indices_in(LaneOrder::shuffled));
  std::reverse(wanted.begin(), wanted.end());
  EXPECT_EQ(indices_in(LaneOrder::descending), wanted);
}
#endif

// A tree over the threadgroup's memory, with a barrier at each level.
TEST(SimtExecutor, BarriersOrderMemory) {
  for (LaneOrder order : kLaneOrders) {
    std::vector<float> sums(6);
    launch({.threadgroups = {6}, .threads = {1024}, .threadgroup_bytes = {4096}, .order = order}, [&] {
      auto* values = reinterpret_cast<float*>(current_lane->threadgroup->memory[0]);
      const uint32_t i = current_lane->index;
      values[i] = static_cast<float>(global_index());
      for (uint32_t step = 512; step > 0; step /= 2) {
        barrier(Site::here());
        if (i < step) values[i] += values[i + step];
      }
      if (i == 0) sums[current_lane->threadgroup->position.x] = values[0];
    });
    for (size_t t = 0; t < 6; t++) EXPECT_EQ(sums[t], 1024.0f * (1024.0f * static_cast<float>(t) + 511.5f));
  }
}

// Lanes of a mask meet while the others are elsewhere.
TEST(SimtExecutor, MasksNameWhoMeets) {
  for (LaneOrder order : kLaneOrders) {
    std::vector<uint32_t> sums(64);
    launch({.threads = {64}, .order = order}, [&] {
      const uint32_t lane = current_lane->lane;
      const uint32_t mask = lane < 12 ? 0xFFFu : lane < 20 ? 0xFF000u : 0x55500000u;
      if (lane >= 20 && lane % 2 == 1) return;
      struct Add {
        uint32_t operator()(uint32_t a, uint32_t b) const { return a + b; }
      };
      sums[current_lane->index] = reduce<Add>(lane, mask, Site::here());
    });
    for (uint32_t i = 0; i < 64; i++) {
      const uint32_t lane = i % 32;
      EXPECT_EQ(sums[i], lane < 12 ? 66u : lane < 20 ? 124u : lane % 2 == 0 ? 150u : 0u);
    }
  }
}

TEST(SimtExecutor, MasksNameWhoHasReturned) {
  EXPECT_PRED2(contains, fault_in([] {
                 launch({.threads = {40}}, [] {
                   if (current_lane->index == 35) return;
                   ballot(true, kAllLanes, Site::here());
                 });
               }),
               "a collective names a lane that does not come: thread 32 waits at ");
  launch({.threads = {40}}, [] { ballot(true, kAllLanes, Site::here()); });  // 8 lanes are all that the second has
}

TEST(SimtExecutor, GoesOnAfterAFault) {
  for (int repeat = 0; repeat < 3; repeat++) {
    EXPECT_PRED2(contains, fault_in([] {
                   launch({.threads = {96}}, [] {
                     if (current_lane->index == 70) fail("no such thing", Site::here());
                     barrier(Site::here());
                   });
                 }),
                 "no such thing: thread 70 at ");
    std::vector<int> runs(96);
    launch({.threads = {96}}, [&] {
      barrier(Site::here());
      runs[current_lane->index]++;
    });
    EXPECT_EQ(runs, std::vector<int>(96, 1));
  }
}

TEST(SimtExecutor, SpreadsOverTheWorkers) {
  WorkerPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  launch({.threadgroups = {4}, .threads = {1024}, .workers = &pool}, [&] {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 3u);
}

}  // namespace
}  // namespace nibble::simt
