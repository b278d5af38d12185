#include "simt/threadgroup_runner.h"

#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "simt/sanitizers.h"

namespace nibble::simt {

NIBBLE_SIMT_FAST_THREAD_LOCAL Lane* current_lane = nullptr;

namespace {

constexpr size_t kMemoryAlignment = 128;

NIBBLE_SIMT_FAST_THREAD_LOCAL ThreadgroupRunner* this_runner = nullptr;

uint32_t low_bits(uint32_t n) { return n >= 32 ? ~0u : (1u << n) - 1; }
uint32_t first_bit(uint32_t set) { return static_cast<uint32_t>(std::countr_zero(set)); }

template <class F>
void for_each_bit(uint32_t set, F f) {
  for (; set; set &= set - 1) f(first_bit(set));
}

std::string text(const Site& site) { return fmt::format("{}:{}", site.file, site.line); }

// Writes 0xFF. Not memset, which ThreadSanitizer watches even from here.
void fill(std::byte* data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    data[i] = std::byte{0xFF};
    if (sanitizers::kThread) asm volatile("" ::: "memory");
  }
}

}  // namespace

ThreadgroupRunner& ThreadgroupRunner::of_this_thread() {
  if (this_runner == nullptr) {
    thread_local std::unique_ptr<ThreadgroupRunner> owner;
    owner = std::make_unique<ThreadgroupRunner>();
    this_runner = owner.get();
  }
  return *this_runner;
}

void fiber_main() { this_runner->run_lanes(); }

std::string ThreadgroupRunner::run(const Launch& launch, Size3 position, Kernel kernel, const void* context) {
  kernel_ = kernel;
  context_ = context;
  start(launch, position);
  if (sanitizers::kThread) fibers_.reserve(num_lanes_);  // a lane that allocates would be taken for one that races

  LaneState* first = next();
  first->fiber = fibers_.take();
  current_lane = first;
  adopt_os_thread(scheduler_);
  sanitizers::release(&begin_sync_);
  switch_fiber(scheduler_, *first->fiber);
  sanitizers::acquire(&end_sync_);
  current_lane = nullptr;
  if (!fault_.empty()) {
    for (char& sync : barrier_sync_) sanitizers::acquire(&sync);
    for (uint32_t s = 0; s < num_simdgroups_; s++)
      for (char& sync : simdgroups_[s].sync) sanitizers::acquire(&sync);
    fibers_.reset();  // lanes are stuck in the middle
  } else if (sanitizers::kThread) {
    for (uint32_t i = 0; i < num_lanes_; i++) fibers_.give_back(lanes_[i].fiber);
  }
  return fault_;
}

void ThreadgroupRunner::start(const Launch& launch, Size3 position) {
  order_ = launch.order;
  random_ = 0x9E3779B97F4A7C15u + position.x + uint64_t{977} * position.y + uint64_t{65537} * position.z;
  fault_.clear();
  serial_++;

  threadgroup_.position = position;
  threadgroup_.threads = launch.threads;
  threadgroup_.threadgroups = launch.threadgroups;
  lay_out_memory(launch.threadgroup_bytes);

  if (launch.threads != numbered_) number_lanes(launch.threads);
  for (uint32_t i = 0; i < num_lanes_; i++) lanes_[i].fiber = nullptr;
  for (uint32_t s = 0; s < num_simdgroups_; s++) {
    simdgroups_[s] = {};
    simdgroups_[s].all = simdgroups_[s].live = simdgroups_[s].runnable = low_bits(num_lanes_ - s * kSimdgroupSize);
  }
  runnable_simdgroups_ = low_bits(num_simdgroups_);
  num_at_barrier_ = 0;
  is_one_barrier_ = true;
  at_ = pick(runnable_simdgroups_);
}

// A gap that AddressSanitizer guards follows each piece.
void ThreadgroupRunner::lay_out_memory(const SharedBytes& pieces) {
  const auto padded = [](uint32_t bytes) {
    return (bytes + 2 * kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment;
  };
  size_t total = kMemoryAlignment;
  threadgroup_bytes_ = 0;
  for (const uint32_t bytes : pieces) {
    total += padded(bytes);
    threadgroup_bytes_ += bytes;
  }
  if (memory_.size() < total) memory_ = std::vector<std::byte>(total);
  sanitizers::unpoison(memory_.data(), memory_.size());
  std::byte* at = memory_.data();
  at += kMemoryAlignment - reinterpret_cast<uintptr_t>(at) % kMemoryAlignment;
  for (size_t i = 0; i < pieces.size(); i++) {
    threadgroup_.memory[i] = at;
    fill(at, pieces[i]);
    sanitizers::poison(at + pieces[i], padded(pieces[i]) - pieces[i]);
    at += padded(pieces[i]);
  }
}

void ThreadgroupRunner::number_lanes(Size3 threads) {
  numbered_ = threads;
  num_lanes_ = static_cast<uint32_t>(threads.count());
  num_simdgroups_ = (num_lanes_ + kSimdgroupSize - 1) / kSimdgroupSize;
  for (uint32_t i = 0; i < num_lanes_; i++) {
    const Size3 thread{i % threads.x, i / threads.x % threads.y, i / (threads.x * threads.y)};
    static_cast<Lane&>(lanes_[i]) = {thread, i, i / kSimdgroupSize, i % kSimdgroupSize, &threadgroup_};
  }
}

void ThreadgroupRunner::wait_at_barrier(Site site) {
  LaneState& l = self();
  Simdgroup& s = simdgroups_[l.simdgroup];
  l.site = site;
  s.runnable &= ~(1u << l.lane);
  s.at_barrier |= 1u << l.lane;
  if (num_at_barrier_++ == 0) barrier_site_ = site;
  is_one_barrier_ &= site == barrier_site_;
  char* sync = &barrier_sync_[barrier_turn_ & 1];
  sanitizers::release(sync);
  suspend();
  sanitizers::acquire(sync);
}

void ThreadgroupRunner::wait_in_collective(void* frame, Combine combine, uint32_t mask, Site site) {
  LaneState& l = self();
  Simdgroup& s = simdgroups_[l.simdgroup];
  if (s.in_collective) {
    const LaneState& other = lane(l.simdgroup, first_bit(s.in_collective));
    s.is_uniform &= other.site == site && other.mask == mask;
  }
  l.site = site;
  l.mask = mask;
  l.combine = combine;
  s.frames[l.lane] = frame;
  s.runnable &= ~(1u << l.lane);
  s.in_collective |= 1u << l.lane;
  char* sync = &s.sync[s.turn & 1];
  sanitizers::release(sync);
  suspend();
  sanitizers::acquire(sync);
}

void ThreadgroupRunner::fail_at(const char* what, Site site) {
  fault_ = fmt::format("{}: thread {} at {}", what, self().index, text(site));
  abandon();
}

// Leaves the lane, and all that wait, where they are.
void ThreadgroupRunner::abandon() {
  LaneState& l = self();
  sanitizers::release(&end_sync_);
  current_lane = nullptr;
  switch_fiber(*l.fiber, scheduler_);
  __builtin_unreachable();  // fibers are reset after a fault
}

void ThreadgroupRunner::enter_shared_variable(SharedVariable& variable, std::byte* data, size_t bytes,
                                              size_t guard_bytes, Site site) {
  if (variable.used_by == serial_) return;
  variable.used_by = serial_;
  if (!variable.is_guarded) {
    sanitizers::poison(data - guard_bytes, guard_bytes);
    sanitizers::poison(data + bytes, guard_bytes);
    variable.is_guarded = true;
  }
  threadgroup_bytes_ += bytes;
  if (threadgroup_bytes_ > kMaxThreadgroupBytes) {
    fault_ = fmt::format("{} bytes of threadgroup memory, {} at most, at {}", threadgroup_bytes_, kMaxThreadgroupBytes,
                         text(site));
    abandon();
  }
  fill(data, bytes);
}

uint32_t ThreadgroupRunner::pick(uint32_t set) {
  if (order_ == LaneOrder::ascending) return first_bit(set);
  if (order_ == LaneOrder::descending) return 31 - static_cast<uint32_t>(std::countl_zero(set));
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const int turn = static_cast<int>(random_ & 31);
  return (first_bit(std::rotr(set, turn)) + static_cast<uint32_t>(turn)) & 31;
}

// The lane to go on with; null when the threadgroup is done or at fault.
ThreadgroupRunner::LaneState* ThreadgroupRunner::next() {
  for (;;) {
    Simdgroup& s = simdgroups_[at_];
    if (!s.runnable && s.in_collective && !resolve_collective(s)) return nullptr;
    if (s.runnable) return &lane(at_, pick(s.runnable));
    runnable_simdgroups_ &= ~(1u << at_);
    if (!runnable_simdgroups_ && !release_barrier()) return nullptr;
    at_ = pick(runnable_simdgroups_);
  }
}

// No lane of the simdgroup can run: completes one collective. Where lanes have diverged, the one that comes first in the
// text: in structured code the others wait behind it until they are together again.
bool ThreadgroupRunner::resolve_collective(Simdgroup& s) {
  const LaneState* first = &lane(at_, first_bit(s.in_collective));
  uint32_t group = s.in_collective;
  if (!s.is_uniform) {
    const auto rank = [&](const LaneState& l) {
      const bool is_incomplete = (l.mask & s.all & ~at_same_site(s, l)) != 0;
      return std::tuple(is_incomplete, l.site.line, l.site.column);
    };
    for_each_bit(s.in_collective, [&](uint32_t i) {
      if (rank(lane(at_, i)) < rank(*first)) first = &lane(at_, i);
    });
    group = at_same_site(s, *first);
  }
  if (const uint32_t absent = first->mask & s.all & ~group)
    return blame("a collective names a lane that does not come", *first, lane(at_, first_bit(absent)));
  for (char& sync : s.sync) sanitizers::acquire(&sync);
  first->combine(s.frames, group);
  sanitizers::release(&s.sync[s.turn & 1]);
  if (!s.is_uniform) sanitizers::release(&s.sync[~s.turn & 1]);  // for lanes that waited while others took a turn
  s.turn++;
  s.in_collective &= ~group;
  s.runnable = group;
  s.is_uniform = s.in_collective == 0;  // else looked at again, lane by lane
  return true;
}

uint32_t ThreadgroupRunner::at_same_site(const Simdgroup& s, const LaneState& as) {
  uint32_t group = 0;
  for_each_bit(s.in_collective, [&](uint32_t i) {
    const LaneState& l = lane(at_, i);
    if (l.site == as.site && l.mask == as.mask) group |= 1u << i;
  });
  return group;
}

// No lane of the threadgroup can run: all wait at a barrier or have returned.
bool ThreadgroupRunner::release_barrier() {
  if (num_at_barrier_ == 0) return false;  // done
  if (num_at_barrier_ < num_lanes_ || !is_one_barrier_) return blame_barrier();
  for (uint32_t i = 0; i < num_simdgroups_; i++) simdgroups_[i].runnable = std::exchange(simdgroups_[i].at_barrier, 0);
  runnable_simdgroups_ = low_bits(num_simdgroups_);
  num_at_barrier_ = 0;
  barrier_turn_++;
  return true;
}

bool ThreadgroupRunner::blame_barrier() {
  const LaneState* first = nullptr;
  const LaneState* returned = nullptr;
  for (uint32_t i = 0; i < num_lanes_; i++) {
    const LaneState& l = lanes_[i];
    const bool waits = simdgroups_[l.simdgroup].at_barrier >> l.lane & 1;
    if (waits && first == nullptr) first = &l;
    if (waits && first->site != l.site) return blame("threads wait at different barriers", *first, l);
    if (!waits) returned = &l;
  }
  return blame("a barrier not reached by every thread", *first, *returned);
}

bool ThreadgroupRunner::blame(const char* what, const LaneState& waiting, const LaneState& other) {
  const bool has_returned = !(simdgroups_[other.simdgroup].live >> other.lane & 1);
  fault_ = fmt::format("{}: thread {} waits at {}, thread {} {}", what, waiting.index, text(waiting.site), other.index,
                       has_returned ? std::string("has returned") : "at " + text(other.site));
  sanitizers::release(&end_sync_);
  return false;
}

void ThreadgroupRunner::suspend() {
  LaneState& from = self();
  LaneState* to = next();
  if (to != &from) switch_to(from, to);
}

void ThreadgroupRunner::switch_to(LaneState& from, LaneState* to) {
  if (to != nullptr && to->fiber == nullptr) to->fiber = fibers_.take();
  current_lane = to;
  switch_fiber(*from.fiber, to != nullptr ? *to->fiber : scheduler_);
}

// A fiber outlives its lane: it goes on with a lane that has not started, so that a kernel without rendezvous is a plain
// loop on one stack. Not under ThreadSanitizer, for which the fiber is the lane's identity.
void ThreadgroupRunner::run_lanes() {
  for (;;) {
    sanitizers::acquire(&begin_sync_);
    kernel_(context_);
    sanitizers::release(&end_sync_);
    LaneState& done = self();
    Simdgroup& s = simdgroups_[done.simdgroup];
    s.live &= ~(1u << done.lane);
    s.runnable &= ~(1u << done.lane);
    LaneState* to = next();
    if (to != nullptr && to->fiber == nullptr && !sanitizers::kThread) {
      to->fiber = done.fiber;
      current_lane = to;
      continue;
    }
    if (!sanitizers::kThread) fibers_.give_back(done.fiber);
    switch_to(done, to);
  }
}

void barrier(Site site) { this_runner->wait_at_barrier(site); }

void collective(void* frame, Combine combine, uint32_t mask, Site site) {
  this_runner->wait_in_collective(frame, combine, mask, site);
}

void fail(const char* what, Site site) { this_runner->fail_at(what, site); }

void enter_shared_variable(SharedVariable& variable, std::byte* data, size_t bytes, size_t guard_bytes, Site site) {
  this_runner->enter_shared_variable(variable, data, bytes, guard_bytes, site);
}

}  // namespace nibble::simt
