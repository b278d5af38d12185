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

// Pieces of all workers' shares, which a worker may take over from another (base/piece_queues.h): the numbers of those that
// each begins with, and what they are.
template <class Piece>
struct PiecesOf {
  std::vector<Range> of_worker;
  std::vector<Piece> pieces;
};
using RowPieces = PiecesOf<RowShare>;

// Half of a worker's rows of a matrix, then half of what is left, down to kFewestPieceBytes, in whole runs of `unit` blocks.
RowPieces cut_shares(std::span<const std::vector<RowShare>> shares, std::span<const SharedMatrix> matrices,
                     int64_t unit = 1);
inline constexpr int64_t kFewestPieceBytes = 16384;

// By worker, in whole blocks. Each team has those rows of every matrix that it packed (blocks_to_pack); its workers have
// contiguous shares of them, even in bytes.
std::vector<std::vector<RowShare>> share_rows(std::span<const SharedMatrix> matrices,
                                              std::span<const WorkerTeam> teams);

}  // namespace nibble
