// Stacks of their own, and the switch from one to another.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

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

// Leaves `from`, which is running, for `to`; returns when something switches back to `from`.
void switch_fiber(Fiber& from, Fiber& to);

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
