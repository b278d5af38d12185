// Which worker packs and which multiplies by which rows: on several NUMA nodes they are of one team.
#include "backends/cpu/row_shares.h"

#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/packed_layout.h"
#include "backends/cpu/packed_matrix.h"
#include "backends/step_program.h"

namespace nibble {
namespace {

using Rows = std::vector<std::vector<int64_t>>;  // {index, first_row, last_row}

Rows rows(const std::vector<RowShare>& shares) {
  Rows list;
  for (const RowShare& s : shares) list.push_back({static_cast<int64_t>(s.index), s.first_row, s.last_row});
  return list;
}

Rows ranges(int64_t E, int64_t num_blocks, const std::vector<WorkerTeam>& teams, int worker) {
  Rows list;
  for (const Range& r : blocks_to_pack(E, num_blocks, teams, worker)) list.push_back({r.first, r.last});
  return list;
}

const std::vector<WorkerTeam> kOne = {{0, 3, {}}}, kTwo = {{0, 2, {}}, {2, 3, {}}},
                              kThree = {{0, 1, {}}, {1, 2, {}}, {2, 3, {}}};

TEST(ShareRows, OneTeamSharesTheBytesOfAllMatrices) {
  const std::vector<SharedMatrix> qkv = {{64, 4000}, {16, 1000}, {15, 1000}};
  const auto shares = share_rows(qkv, kOne);
  EXPECT_EQ(rows(shares[0]), (Rows{{0, 0, 32}}));
  EXPECT_EQ(rows(shares[1]), (Rows{{0, 32, 64}}));
  EXPECT_EQ(rows(shares[2]), (Rows{{1, 0, 16}, {2, 0, 15}}));
}

TEST(ShareRows, EachTeamHasItsRowsOfEveryMatrix) {
  const std::vector<SharedMatrix> qkv = {{96, 6000}, {48, 3000}, {41, 3000}};
  const auto shares = share_rows(qkv, kTwo);  // two thirds and one third of each
  EXPECT_EQ(rows(shares[0]), (Rows{{0, 0, 64}}));
  EXPECT_EQ(rows(shares[1]), (Rows{{1, 0, 32}, {2, 0, 32}}));
  EXPECT_EQ(rows(shares[2]), (Rows{{0, 64, 96}, {1, 32, 48}, {2, 32, 41}}));
}

TEST(CutShares, HalvesOfEachWorkersRows) {
  const std::vector<SharedMatrix> matrices = {{256, 16 * kFewestPieceBytes}, {100, 7}};
  const RowPieces cut =
      cut_shares(std::vector<std::vector<RowShare>>{{{0, 0, 160}}, {}, {{0, 160, 256}, {1, 0, 100}}}, matrices);
  EXPECT_EQ(rows(cut.pieces), (Rows{{0, 0, 80},
                                    {0, 80, 112},
                                    {0, 112, 128},
                                    {0, 128, 144},
                                    {0, 144, 160},
                                    {0, 160, 208},
                                    {0, 208, 224},
                                    {0, 224, 240},
                                    {0, 240, 256},
                                    {1, 0, 100}}));  // too small to be cut
  ASSERT_EQ(cut.of_worker.size(), 3u);
  EXPECT_EQ(cut.of_worker[0].last, 5);
  EXPECT_EQ(cut.of_worker[1].first, cut.of_worker[1].last);
  EXPECT_EQ(cut.of_worker[2].first, 5);
  EXPECT_EQ(cut.of_worker[2].last, 10);
}

TEST(BlocksToPack, AreAShareOfAllWhereThereIsOneTeam) {
  for (int worker = 0; worker < 3; worker++) {
    const Range all = worker_range(4 * 5, 1, worker, 3);
    EXPECT_EQ(ranges(4, 5, kOne, worker), (Rows{{all.first, all.last}}));
  }
  EXPECT_EQ(ranges(1, 0, kOne, 0), Rows{});
}

TEST(BlocksToPack, AreTheTeamsOfEveryExpert) {
  EXPECT_EQ(ranges(4, 6, kTwo, 0), (Rows{{0, 4}, {6, 10}}));  // of each 6 the first 4
  EXPECT_EQ(ranges(4, 6, kTwo, 1), (Rows{{12, 16}, {18, 22}}));
  EXPECT_EQ(ranges(4, 6, kTwo, 2), (Rows{{4, 6}, {10, 12}, {16, 18}, {22, 24}}));
  EXPECT_EQ(ranges(2, 1, kTwo, 0), Rows{});  // a block that only the last worker has
  EXPECT_EQ(ranges(2, 1, kTwo, 2), (Rows{{0, 2}}));
}

// The team that packs a block is the team that reads it: of linears by share_rows, of experts by worker_range.
TEST(BlocksToPack, AreReadByTheTeamThatPacksThem) {
  constexpr int kWorkers = 3;
  for (const auto& teams : {kOne, kTwo, kThree}) {
    const auto team_of = [&](int worker) {
      return std::ranges::find_if(teams, [&](const WorkerTeam& t) { return worker < t.last; }) - teams.begin();
    };
    for (int64_t num_blocks : {1, 2, 3, 7, 24}) {
      for (int64_t E : {1, 5}) {
        const int64_t N = num_blocks * kBlockRows - 3;
        std::vector<int64_t> packed_by(static_cast<size_t>(E * num_blocks), -1), read_by = packed_by;
        const std::vector<SharedMatrix> matrix = {{N, num_blocks * 1000}};
        const auto shares = share_rows(matrix, teams);
        for (int worker = 0; worker < kWorkers; worker++) {
          for (const Range& r : blocks_to_pack(E, num_blocks, teams, worker))
            for (int64_t i = r.first; i < r.last; i++) {
              EXPECT_EQ(packed_by[static_cast<size_t>(i)], -1) << "packed twice";
              packed_by[static_cast<size_t>(i)] = team_of(worker);
            }
          const auto read = [&](int64_t e, int64_t first_row, int64_t last_row) {
            for (int64_t n = first_row; n < last_row; n++)
              read_by[static_cast<size_t>(e * num_blocks + n / kBlockRows)] = team_of(worker);
          };
          const Range own = worker_range(N, kBlockRows, worker, kWorkers);
          for (int64_t e = 0; e < E && E > 1; e++) read(e, own.first, own.last);
          for (const RowShare& s : shares[static_cast<size_t>(worker)])
            if (E == 1) read(0, s.first_row, s.last_row);
        }
        EXPECT_EQ(packed_by, read_by) << teams.size() << " teams, " << num_blocks << " blocks, " << E << " experts";
        EXPECT_EQ(std::ranges::count(packed_by, -1), 0);
      }
    }
  }
}

TEST(ShareRows, TeamsChangeNoBit) {
  StepProgram p(3);
  const Slice x = p.random_input("x", 64), gate = p.step.buffer("gate", 200), up = p.step.buffer("up", 200),
              hidden = p.step.buffer("hidden", 200);
  p.step.logits = p.step.buffer("out", 90);
  p.step.linear({.x = x, .w = p.matrix(FormatId::mxfp4, 200, 64), .out = gate});
  p.step.linear({.x = x, .w = p.matrix(FormatId::mxfp4, 200, 64), .out = up});
  p.step.swiglu({.gate = gate, .up = up, .out = hidden});
  p.step.linear({.x = hidden, .w = p.matrix(FormatId::nvfp4, 90, 200), .out = p.step.logits});
  const auto expected = p.run(*make_cpu_backend(3), p.one_run());
  for (const auto& teams : {kTwo, kThree}) EXPECT_EQ(p.run(*make_cpu_backend(teams), p.one_run()), expected);
}

}  // namespace
}  // namespace nibble
