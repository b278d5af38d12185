// Large files in pieces that several threads work on.
#pragma once

#include <cstddef>
#include <functional>

namespace nibble {

// Calls work(piece, thread) for each piece below `count`, on `num_threads` threads, the caller's among them. Rethrows what
// one of them threw, when all have ended.
void for_each_piece(size_t count, size_t num_threads, const std::function<void(size_t piece, size_t thread)>& work);

// Reads that wait for the disk together: a drive gives its full speed to 2 to 4 MB in flight, and more.
inline constexpr size_t kReaders = 4;

}  // namespace nibble
