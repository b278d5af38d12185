#include "base/pieces.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace nibble {

void for_each_piece(size_t count, size_t num_threads, const std::function<void(size_t piece, size_t thread)>& work) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work_on = [&](size_t thread) {
    try {
      for (size_t i; (i = next++) < count;) work(i, thread);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      next = count;
    }
  };
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(num_threads, count); i++) others.emplace_back(work_on, i);
    work_on(0);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace nibble
