#include "backends/cpu/row_shares.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/packed_layout.h"
#include "base/piece_queues.h"

namespace nibble {

std::vector<std::vector<RowShare>> share_rows(std::span<const SharedMatrix> matrices,
                                              std::span<const WorkerTeam> teams) {
  const int num_workers = teams.back().last;
  std::vector<std::vector<RowShare>> shares(static_cast<size_t>(num_workers));
  for (const WorkerTeam& team : teams) {
    struct TeamPart {
      Range blocks;  // of a matrix, that the team has
      double bytes;
    };
    std::vector<TeamPart> parts;
    double total = 0, before = 0;
    for (const SharedMatrix& m : matrices) {
      const int64_t num_blocks = std::max<int64_t>((m.N + kBlockRows - 1) / kBlockRows, 1);
      const Range blocks = team_range(num_blocks, 1, team, num_workers);
      parts.push_back({blocks, static_cast<double>(m.bytes) * static_cast<double>(blocks.last - blocks.first) /
                                   static_cast<double>(num_blocks)});
      total += parts.back().bytes;
    }
    for (size_t i = 0; i < matrices.size(); i++) {
      const auto [blocks, bytes] = parts[i];
      if (blocks.first == blocks.last) continue;
      const auto block_at = [&](int member) {  // the first block of this matrix that begins in the member's share
        const double at = total * member / (team.last - team.first) - before;
        const double block = std::round(at / bytes * static_cast<double>(blocks.last - blocks.first));
        return std::clamp(blocks.first + static_cast<int64_t>(block), blocks.first, blocks.last);
      };
      for (int worker = team.first; worker < team.last; worker++) {
        const int64_t first = std::min(block_at(worker - team.first) * kBlockRows, matrices[i].N);
        const int64_t last = std::min(block_at(worker - team.first + 1) * kBlockRows, matrices[i].N);
        if (first < last) shares[static_cast<size_t>(worker)].push_back({i, first, last});
      }
      before += bytes;
    }
  }
  return shares;
}

RowPieces cut_shares(std::span<const std::vector<RowShare>> shares, std::span<const SharedMatrix> matrices,
                     int64_t unit) {
  const int64_t unit_rows = unit * kBlockRows;
  RowPieces all;
  for (const std::vector<RowShare>& own : shares) {
    const auto first_piece = static_cast<int64_t>(all.pieces.size());
    for (const RowShare& share : own) {
      const SharedMatrix& m = matrices[share.index];
      const int64_t num_units = (share.last_row - share.first_row + unit_rows - 1) / unit_rows;
      const int64_t unit_bytes = std::max<int64_t>(m.bytes * unit_rows / m.N, 1);
      cut_in_halves(num_units, std::max<int64_t>(kFewestPieceBytes / unit_bytes, 1), [&](int64_t first, int64_t last) {
        all.pieces.push_back({share.index, share.first_row + first * unit_rows,
                              std::min(share.first_row + last * unit_rows, share.last_row)});
      });
    }
    all.of_worker.push_back({first_piece, static_cast<int64_t>(all.pieces.size())});
  }
  return all;
}

}  // namespace nibble
