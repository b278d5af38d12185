// What AddressSanitizer and ThreadSanitizer must be told of fibers; nothing in other builds.
//
// The executor itself is built without -fsanitize=thread, and with NIBBLE_SIMT_TSAN instead: its own accesses are no
// business of the race detector, which is to see the kernels' only, ordered by the rendezvous and nothing else.
#pragma once

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_SIMT_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#endif
#ifdef NIBBLE_SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace nibble::simt::sanitizers {

#ifdef NIBBLE_SIMT_ASAN
inline constexpr bool kAddress = true;
inline void poison(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void unpoison(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
inline constexpr bool kAddress = false;
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

#ifdef NIBBLE_SIMT_TSAN
inline constexpr bool kThread = true;
// What was written before a release of `sync` is ordered before what follows an acquire of it.
inline void acquire(void* sync) { __tsan_acquire(sync); }
inline void release(void* sync) { __tsan_release(sync); }
#else
inline constexpr bool kThread = false;
inline void acquire(void*) {}
inline void release(void*) {}
#endif

}  // namespace nibble::simt::sanitizers
