// Which rows of the matrices of one phase each worker multiplies by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/worker_pool.h"

namespace nibble {

// What the shares depend on.
struct SharedMatrix {
  int64_t N, bytes;
};

// Rows [first_row, last_row) of matrix `index`.
struct RowShare {
  size_t index;
  int64_t first_row, last_row;
};

// By worker, in whole blocks. Each team has those rows of every matrix that it packed (blocks_to_pack); its workers have
// contiguous shares of them, even in bytes.
std::vector<std::vector<RowShare>> share_rows(std::span<const SharedMatrix> matrices,
                                              std::span<const WorkerTeam> teams);

}  // namespace nibble
