#include "simt/fiber.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>
#include <utility>

#include "simt/sanitizers.h"

#ifdef NIBBLE_SIMT_BOOST_CONTEXT
#include <boost/context/detail/fcontext.hpp>
#endif

// nibble_simt_switch(save, load) stores the stack pointer at *save, with the registers that a call preserves below it, and
// goes on from `load`. No signal mask, no rounding mode: 3 ns, where Boost's fcontext takes 5 to 7 (25 and more with 1024
// fibers in use). It ends in a return rather than an indirect jump (13 ns): lanes wait in the same chain of calls, so that the
// processor predicts where a return goes. Not for processes with a hardware shadow stack (CET), which such a return would end.
//
// kFrameWords is what a stack that has not run yet holds for it; the word kEntryWord is where it starts.
#ifndef NIBBLE_SIMT_BOOST_CONTEXT
#if defined(__APPLE__)
#define NIBBLE_SIMT_SYMBOL "_nibble_simt_switch"
#else
#define NIBBLE_SIMT_SYMBOL "nibble_simt_switch"
#endif
#if defined(__x86_64__)
asm(".text\n.globl " NIBBLE_SIMT_SYMBOL "\n" NIBBLE_SIMT_SYMBOL R"(:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
static constexpr size_t kFrameWords = 8, kEntryWord = 6;  // the last word leaves the stack as a call would
#elif defined(__aarch64__)
asm(".text\n.p2align 2\n.globl " NIBBLE_SIMT_SYMBOL "\n" NIBBLE_SIMT_SYMBOL R"(:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
static constexpr size_t kFrameWords = 20, kEntryWord = 11;  // x30
#else
#error "no stack switch for this processor: configure with NIBBLE_SIMT_BOOST_CONTEXT=ON"
#endif
#endif

namespace nibble::simt {

namespace {

// Only pages that are touched cost memory. AddressSanitizer's frames are several times as large.
constexpr size_t kStackBytes = sanitizers::kAddress ? 256 << 10 : 64 << 10;

// Tops of stacks are moved apart by this, so that the frames of lanes at the same place fall into different sets of the
// first-level cache: 8.6 ns for a shuffle rather than 14.
constexpr size_t kTopStep = size_t{9} * 64;

size_t page_bytes() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

void enter() {
#ifdef NIBBLE_SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  fiber_main();
}

#ifdef NIBBLE_SIMT_BOOST_CONTEXT
namespace boost_context = boost::context::detail;

void keep(boost_context::transfer_t from) { *static_cast<void**>(from.data) = from.fctx; }

void* new_stack(const Fiber& fiber) {
  const auto bytes = static_cast<size_t>(fiber.top - fiber.bottom);
  return boost_context::make_fcontext(fiber.top, bytes, [](boost_context::transfer_t from) {
    keep(from);
    enter();
  });
}
#else
void* new_stack(const Fiber& fiber) {
  auto** words = reinterpret_cast<void**>(fiber.top) - kFrameWords;
  for (size_t i = 0; i < kFrameWords; i++) words[i] = nullptr;
  words[kEntryWord] = reinterpret_cast<void*>(&enter);
  return static_cast<void*>(words);
}
#endif

// A fiber starts at fiber_main again, wherever it was.
void start_over(Fiber& fiber) {
  sanitizers::unpoison(fiber.bottom + page_bytes(), kStackBytes - page_bytes());
  fiber.saved = new_stack(fiber);
#ifdef NIBBLE_SIMT_TSAN
  if (fiber.context != nullptr) __tsan_destroy_fiber(fiber.context);
  fiber.context = __tsan_create_fiber(0);
#endif
}

}  // namespace

#ifdef NIBBLE_SIMT_BOOST_CONTEXT
extern "C" void nibble_simt_switch(void** save, void* load) { keep(boost_context::jump_fcontext(load, save)); }
#endif

void adopt_os_thread(Fiber& fiber) {
#ifdef NIBBLE_SIMT_TSAN
  fiber.context = __tsan_get_current_fiber();
#endif
#ifdef NIBBLE_SIMT_ASAN
  if (fiber.bottom != nullptr) return;
#ifdef __APPLE__
  fiber.top = static_cast<std::byte*>(pthread_get_stackaddr_np(pthread_self()));
  fiber.bottom = fiber.top - pthread_get_stacksize_np(pthread_self());
#else
  pthread_attr_t attributes;
  void* bottom = nullptr;
  size_t size = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &size);
  pthread_attr_destroy(&attributes);
  fiber.bottom = static_cast<std::byte*>(bottom);
  fiber.top = fiber.bottom + size;
#endif
#else
  (void)fiber;
#endif
}

FiberPool::~FiberPool() {
  for (auto& fiber : all_) {
    sanitizers::unpoison(fiber->bottom, kStackBytes);
#ifdef NIBBLE_SIMT_TSAN
    __tsan_destroy_fiber(fiber->context);
#endif
    munmap(fiber->bottom, kStackBytes);
  }
}

void FiberPool::add() {
  auto fiber = std::make_unique<Fiber>();
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack, page_bytes(), PROT_NONE);  // an overflow ends in a fault, not in a neighbour
  fiber->bottom = static_cast<std::byte*>(stack);
  fiber->top = fiber->bottom + kStackBytes - all_.size() * kTopStep % 4096 / 64 * 64;
  start_over(*fiber);
  idle_.push_back(fiber.get());
  all_.push_back(std::move(fiber));
}

void FiberPool::reset() {
  idle_.clear();
  for (auto& fiber : all_) {
    start_over(*fiber);
    idle_.push_back(fiber.get());
  }
}

}  // namespace nibble::simt
