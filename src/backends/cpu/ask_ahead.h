// Asks for the beginning of the rows that a worker reads next, into its second-level cache, while it has no other use for
// memory: it waits for others at a barrier, or rounds activations.
#pragma once

#include <cstdint>

#include "backends/cpu/kernels.h"

namespace nibble {

// Small matrices gain: without asking, GLM-4.7-Flash's router is read at 28–32 GB/s on 16 threads (Sapphire Rapids), with it at
// 37–40. 256 KB give no more.
inline constexpr int64_t kAskedBytes = 65536;
inline constexpr int kAskedGroups = 4, kAskedLines = 12;  // after so many groups that are rounded, so many lines
inline constexpr int kLinesWaiting = 4;                   // at a time

inline RowsToCome rows_to_come(const PackedMatrix& w, int64_t e, int64_t row) {
  return {&w, e * w.num_blocks + row / kBlockRows};
}

class alignas(kLineBytes) AskAhead {
 public:
  // From these rows on, unless they are what is being asked for already.
  void begin(const RowsToCome& rows) {
    const uint8_t* first = rows.w != nullptr ? rows.w->codes + rows.block * rows.w->block_code_bytes : nullptr;
    if (first == first_) return;
    first_ = at_ = first;
    if (first != nullptr) __builtin_prefetch(rows.w->scales + rows.block * rows.w->block_scale_bytes, 0, 2);
  }

  // Some lines more; false when there are enough.
  bool ask(int lines) {
    if (first_ == nullptr) return false;
    for (; lines > 0 && at_ < first_ + kAskedBytes; lines--, at_ += kLineBytes) __builtin_prefetch(at_, 0, 2);
    return at_ < first_ + kAskedBytes;
  }

 private:
  const uint8_t *first_ = nullptr, *at_ = nullptr;
};

// CpuKernels::prepare, with asking between the groups.
inline void prepare_asking(const CpuKernels& kernels, const Activations& x, int64_t first, int64_t last,
                           AskAhead& ahead) {
  for (int64_t i = first; i < last; i += kAskedGroups) {
    kernels.prepare(x, i, i + kAskedGroups < last ? i + kAskedGroups : last);
    ahead.ask(kAskedLines);
  }
}

}  // namespace nibble
