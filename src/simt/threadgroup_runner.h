// Runs threadgroups on one OS thread, one after another: the scheduler of their lanes.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/executor.h"
#include "simt/fiber.h"

namespace nibble::simt {

class ThreadgroupRunner {
 public:
  // The one of this OS thread, for as long as the thread lives: a lane that waits may hold the address of a thread_local.
  static ThreadgroupRunner& of_this_thread();

  // Returns the fault, or an empty string.
  std::string run(const Launch& launch, Size3 position, Kernel kernel, const void* context);

  // As the current lane.
  void wait_at_barrier(Site site);
  void wait_in_collective(void* frame, Combine combine, uint32_t mask, Site site);
  [[noreturn]] void fail_at(const char* what, Site site);
  void enter_shared_variable(SharedVariable& variable, std::byte* data, size_t bytes, size_t guard_bytes, Site site);

  // Runs lanes until there is none to start: what a fiber does.
  [[noreturn]] void run_lanes();

 private:
  struct LaneState : Lane {
    Fiber* fiber = nullptr;  // null: not started
    Site site;               // where it waits, with which mask and combine
    uint32_t mask = 0;
    Combine combine = nullptr;
  };

  // Sets of lanes are bits: `all` that there are, `live` those that have not returned, each of them in one of the last three.
  struct Simdgroup {
    uint32_t all = 0, live = 0, runnable = 0, in_collective = 0, at_barrier = 0;
    bool is_uniform = true;  // all in_collective came with the site and the mask of the first
    void* frames[kSimdgroupSize] = {};
    uint32_t turn = 0;  // of its collectives: which of the two sync objects orders the lanes
    char sync[2] = {};
  };

  void start(const Launch& launch, Size3 position);
  void lay_out_memory(const SharedBytes& pieces);
  void number_lanes(Size3 threads);
  LaneState& self() { return static_cast<LaneState&>(*current_lane); }
  LaneState& lane(uint32_t simdgroup, uint32_t i) { return lanes_[simdgroup * kSimdgroupSize + i]; }
  uint32_t pick(uint32_t set);
  LaneState* next();
  bool resolve_collective(Simdgroup& simdgroup);
  uint32_t at_same_site(const Simdgroup& simdgroup, const LaneState& as);
  bool release_barrier();
  [[noreturn]] void abandon();
  bool blame_barrier();
  bool blame(const char* what, const LaneState& waiting, const LaneState& other);
  void suspend();
  void switch_to(LaneState& from, LaneState* to);

  LaneState lanes_[kMaxThreadgroupThreads];
  Simdgroup simdgroups_[kMaxThreadgroupThreads / kSimdgroupSize];
  Threadgroup threadgroup_;
  Size3 numbered_{0, 0, 0};  // the size of threadgroup that lanes_ has positions for
  uint32_t num_lanes_ = 0, num_simdgroups_ = 0;
  uint32_t at_ = 0;  // the simdgroup whose turn it is
  uint32_t runnable_simdgroups_ = 0;
  uint32_t num_at_barrier_ = 0;
  Site barrier_site_;           // of the first that came
  bool is_one_barrier_ = true;  // all came to that one
  uint32_t barrier_turn_ = 0;
  char barrier_sync_[2] = {};
  char begin_sync_ = 0,
       end_sync_ = 0;  // order the lanes after what was before the threadgroup, and what follows after them

  uint64_t serial_ = 0;           // of the threadgroup, on this OS thread
  size_t threadgroup_bytes_ = 0;  // that it has used so far
  std::vector<std::byte> memory_;
  FiberPool fibers_;
  Fiber scheduler_;  // the OS thread's own stack
  Kernel kernel_ = nullptr;
  const void* context_ = nullptr;
  LaneOrder order_ = LaneOrder::ascending;
  uint64_t random_ = 0;
  std::string fault_;
};

}  // namespace nibble::simt
