// Multiplies by the matrices of a step, on its route: the kernel that suits M, or tiles of 64×64 whatever M is.
//
// The tiles are for comparison. They take the very same kernel as the linears of a prompt and give the same values, but
// all 64 rows of a tile are computed, and those of them that are tokens are stored.
#pragma once

#include <span>
#include <vector>

#include "backends/cpu/kernels.h"
#include "base/memory.h"
#include "ops/choose_gemm.h"

namespace nibble {

// What one worker needs for tiles: 64 rows of activations, zeros where there is no token, and 64 columns of results.
class TokenTile {
 public:
  TokenTile(int64_t largest_K, int bits);

  // CpuKernels::linear, with all 64 rows of each tile computed.
  void linear(const LinearTask& task) const;

  size_t bytes() const { return rows_.size() + groups_.size() + out_.size(); }

 private:
  const int activation_bits_;
  Buffer rows_, groups_;  // [64, K]: floats, and the same rounded; all zeros between calls
  Buffer out_;            // [64, 64]
};

class Linears {
 public:
  Linears(LinearRoute route, int bits, std::span<const PackedWeight* const> weights, int num_workers);

  void run(const LinearTask& task, int worker) const {
    if (tiles_.empty()) {
      kernels_.linear(task);
    } else {
      tiles_[static_cast<size_t>(worker)].linear(task);
    }
  }

  size_t scratch_bytes() const;

  const int activation_bits;  // of the activations that it is given

 private:
  const CpuKernels& kernels_ = cpu_kernels();
  std::vector<TokenTile> tiles_;  // by worker, if that is the route
};

}  // namespace nibble
