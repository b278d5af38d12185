// What all linears do with a task: its tokens tile by tile, and what becomes of a block's sums.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/kernels.h"

namespace nibble {
namespace {

// Token i of the task, of which y are the sums of the rows from first_row on.
template <class Isa>
void finish_token(const LinearTask& task, int64_t first_row, int64_t i, typename Isa::Floats y) {
  const PackedMatrix& w = *task.w;
  const int num_rows =
      static_cast<int>(task.last_row - first_row < kBlockRows ? task.last_row - first_row : kBlockRows);
  float* out = task.out + i * task.out_stride + first_row;
  typename Isa::Floats bias = Isa::zero();
  if (task.bias != nullptr) bias = Isa::load(task.bias + first_row, num_rows);
  typename Isa::Floats value =
      Isa::fma(y, Isa::load(w.row_factors + task.e * w.num_blocks * kBlockRows + first_row), bias);
  if (task.accumulate) value = Isa::add(value, Isa::load(out, num_rows));
  Isa::store(out, value, num_rows);
}

// Calls each(i, count) for the tokens of the task, those of a tile together.
template <class Each>
void for_each_tile(const LinearTask& task, const Each& each) {
  for (int64_t i = 0; i < task.num_tokens;) {
    const int64_t left = task.num_tokens - i, left_in_tile = kTokenTile - (task.first_token + i) % kTokenTile;
    const int64_t count = left < left_in_tile ? left : left_in_tile;
    each(i, count);
    i += count;
  }
}

}  // namespace
}  // namespace nibble
