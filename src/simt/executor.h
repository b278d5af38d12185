// Runs a GPU kernel on the CPU: one fiber per GPU thread, so that barriers and collectives are real rendezvous.
//
// Words are Metal's: a grid of threadgroups, each of up to 1024 threads; 32 threads beside each other are a simdgroup
// (a warp), and a thread is a lane of it. A threadgroup runs on one OS thread; threadgroups spread over a WorkerPool.
//
// A lane runs until it comes to a rendezvous; then another lane of its simdgroup goes on. The last to come does the work
// for all. What hardware leaves undefined ends the launch here, as an InputError that names the kernel's lines:
//   - a barrier that not every thread reaches, or threads at different barriers
//   - a collective that names a lane which never comes
//   - more threadgroup memory than a GPU has
// With -fsanitize=address the kernel's own accesses are checked too; with -fsanitize=thread each lane is a thread, ordered
// with others by rendezvous only, and a missing barrier is reported as the data race that it is.
//
// No lane is ever preempted: a kernel that spins on memory which another lane writes hangs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nibble {
class WorkerPool;
}

namespace nibble::simt {

inline constexpr uint32_t kSimdgroupSize = 32;
inline constexpr uint32_t kMaxThreadgroupThreads = 1024;
inline constexpr size_t kMaxThreadgroupBytes = 32 << 10;  // Apple's GPUs have this much for a threadgroup

struct Size3 {
  uint32_t x = 1, y = 1, z = 1;
  constexpr uint64_t count() const { return uint64_t{x} * y * z; }
  bool operator==(const Size3&) const = default;
};

// Who goes on where several can: lanes, simdgroups and threadgroups alike. A right kernel gives the same result in every
// order, one that lacks a barrier seldom does.
enum class LaneOrder : uint8_t { ascending, descending, shuffled };
inline constexpr LaneOrder kLaneOrders[] = {LaneOrder::ascending, LaneOrder::descending, LaneOrder::shuffled};

inline constexpr int kMaxSharedPieces = 8;
using SharedBytes = std::array<uint32_t, kMaxSharedPieces>;

struct Launch {
  Size3 threadgroups;                  // of the grid
  Size3 threads;                       // of a threadgroup, 1 … 1024 in all
  SharedBytes threadgroup_bytes = {};  // memory that the threads of a threadgroup share, in pieces
  WorkerPool* workers = nullptr;       // the OS threads; null: the calling one
  LaneOrder order = LaneOrder::ascending;
};

// A place in a kernel. Each rendezvous has one as its last argument, by default the caller's.
struct Site {
  const char* file = "";
  uint32_t line = 0, column = 0;
  static constexpr Site here(const char* in_file = __builtin_FILE(), uint32_t at_line = __builtin_LINE(),
                             uint32_t at_column = __builtin_COLUMN()) {
    return {in_file, at_line, at_column};
  }
  bool operator==(const Site&) const = default;
};

struct Threadgroup {
  Size3 position;      // in the grid
  Size3 threads;       // that it has
  Size3 threadgroups;  // of the grid
  // The pieces of Launch::threadgroup_bytes, filled with 0xFF (a NaN in every float type) before its first lane runs.
  std::byte* memory[kMaxSharedPieces];
};

struct Lane {
  Size3 thread;    // position in its threadgroup
  uint32_t index;  // the same, linear
  uint32_t simdgroup, lane;
  const Threadgroup* threadgroup;
};

// The lane that runs on this OS thread. It is read all the time: constinit, or a wrapper function would stand before each read,
// and at a place known when the program starts, or another would (a shuffle takes 11 ns, not 14).
#define NIBBLE_SIMT_FAST_THREAD_LOCAL __attribute__((tls_model("initial-exec"))) constinit thread_local
extern NIBBLE_SIMT_FAST_THREAD_LOCAL Lane* current_lane;

// Runs `kernel(context)` once as each thread of the grid. Throws InputError at the first fault; the launch's other
// threadgroups may then have run or not. One launch at a time uses a pool.
using Kernel = void (*)(const void* context);
void launch(const Launch& how, Kernel kernel, const void* context);

template <class F>
void launch(const Launch& how, const F& kernel) {
  launch(how, [](const void* f) { (*static_cast<const F*>(f))(); }, &kernel);
}

// What follows is called by kernels, as a lane.

// Waits for all threads of the threadgroup; all must wait at the same site.
void barrier(Site);

// Waits for other lanes of the simdgroup at the same site: those of `mask` (bit i is lane i; one that is named and never comes,
// perhaps since it has returned, is a fault; bits beyond the simdgroup's last lane don't count), or, with kActiveLanes,
// whichever come. Each lane passes a frame on its own stack. `combine` runs once for all, and may read and write every frame:
// frames[i] for the bits of `lanes`.
inline constexpr uint32_t kActiveLanes = 0;
inline constexpr uint32_t kAllLanes = ~uint32_t{0};
using Combine = void (*)(void* const* frames, uint32_t lanes);
void collective(void* frame, Combine combine, uint32_t mask, Site);

template <class Frame, void (*combine)(Frame* const* frames, uint32_t lanes)>
void collective(Frame& frame, uint32_t mask, Site site) {
  collective(
      &frame, [](void* const* f, uint32_t lanes) { combine(reinterpret_cast<Frame* const*>(f), lanes); }, mask, site);
}

// Ends the launch with an InputError: `what`, the thread, its site.
[[noreturn]] void fail(const char* what, Site);

// A variable that the threads of a threadgroup share, in storage of the OS thread that runs them: filled with 0xFF for each
// threadgroup before its first thread sees it, and counted against kMaxThreadgroupBytes.
struct SharedVariable {
  uint64_t used_by = 0;  // the threadgroup that filled it last
  bool is_guarded = false;
};
// `guard_bytes` on both sides of it are poisoned for AddressSanitizer.
void enter_shared_variable(SharedVariable&, std::byte* data, size_t bytes, size_t guard_bytes, Site);

}  // namespace nibble::simt
