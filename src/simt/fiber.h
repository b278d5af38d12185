// Stacks of their own, and the switch from one to another.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "simt/sanitizers.h"

namespace nibble::simt {

// A stack and where it was left. Fibers of one OS thread switch to each other only.
struct Fiber {
  std::byte* bottom = nullptr;
  std::byte* top = nullptr;
  void* saved = nullptr;    // its stack pointer while another runs
  void* context = nullptr;  // ThreadSanitizer's, of this fiber
};

// What a fiber runs; threadgroup_runner.cc has it. It must not return.
[[noreturn]] void fiber_main();

// Stores where it is at *save and goes on from `load`: a stack that was left so, or that has not begun.
extern "C" void nibble_simt_switch(void** save, void* load);

// Leaves `from`, which is running, for `to`; returns when something switches back to `from`. Inline: it is half of what a
// rendezvous costs.
inline void switch_fiber(Fiber& from, Fiber& to) {
#ifdef NIBBLE_SIMT_TSAN
  __tsan_switch_to_fiber(to.context, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef NIBBLE_SIMT_ASAN
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to.bottom, static_cast<size_t>(to.top - to.bottom));
  nibble_simt_switch(&from.saved, to.saved);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
  nibble_simt_switch(&from.saved, to.saved);
#endif
}

// Makes `fiber` stand for the OS thread that calls.
void adopt_os_thread(Fiber& fiber);

// The fibers of an OS thread, used again and again, so that a stack's pages are touched once.
class FiberPool {
 public:
  FiberPool() = default;
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // A fiber that starts at fiber_main, or goes on where it was left when it was given back. Throws std::bad_alloc.
  Fiber* take() {
    if (idle_.empty()) add();
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }
  // Makes fibers until there are as many.
  void reserve(size_t count) {
    while (all_.size() < count) add();
  }
  void give_back(Fiber* fiber) { idle_.push_back(fiber); }

  // Every fiber starts anew, wherever it was stuck.
  void reset();

 private:
  void add();

  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> idle_;
};

}  // namespace nibble::simt
