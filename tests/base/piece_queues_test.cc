#include "base/piece_queues.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace nibble {
namespace {

std::vector<int64_t> all_of(PieceQueues& queues, int worker) {
  std::vector<int64_t> taken;
  for (int64_t piece; (piece = queues.take(worker)) >= 0;) taken.push_back(piece);
  return taken;
}

TEST(PieceQueues, OwnPiecesInOrderThenOthersFromTheEnd) {
  const std::vector<WorkerTeam> teams = {{0, 3, {}}};
  PieceQueues queues(teams);
  EXPECT_EQ(queues.take(0), -1);
  queues.fill(0, {0, 3});
  queues.fill(1, {3, 5});
  queues.fill(2, {5, 5});
  EXPECT_EQ(queues.peek(0), 0);
  EXPECT_EQ(queues.take(0), 0);
  EXPECT_EQ(queues.peek(0), 1);
  EXPECT_EQ(queues.peek(2), -1);  // what it would take is not its own
  EXPECT_EQ(queues.take(2), 2);   // the last worker goes on with the first
  EXPECT_EQ(queues.take(1), 3);
  EXPECT_EQ(all_of(queues, 0), (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(all_of(queues, 1), std::vector<int64_t>{});
  EXPECT_EQ(queues.peek(0), -1);
}

TEST(PieceQueues, TeamsKeepTheirPieces) {
  const std::vector<WorkerTeam> teams = {{0, 2, {}}, {2, 3, {}}};
  PieceQueues queues(teams);
  for (int worker = 0; worker < 3; worker++) queues.fill(worker, {2 * worker, 2 * worker + 2});
  EXPECT_EQ(all_of(queues, 2), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(all_of(queues, 1), (std::vector<int64_t>{2, 3, 1, 0}));
}

// Phases one after the other, with two queues in turn, as a step has them.
TEST(PieceQueues, EachPieceIsTakenOnce) {
  constexpr int kWorkers = 4, kPhases = 300, kPieces = 37;
  WorkerPool pool(kWorkers);
  PieceQueues queues[2] = {PieceQueues(pool.teams()), PieceQueues(pool.teams())};
  std::vector<int> times(kPhases * kPieces);  // plain ints: the thread sanitizer finds a piece that two have
  pool.run([&](int worker) {
    const Range own = worker_range(kPieces, 1, worker, kWorkers);
    queues[0].fill(worker, own);
    for (int phase = 0; phase < kPhases; phase++) {
      queues[(phase + 1) % 2].fill(worker, own);
      for (int64_t piece; (piece = queues[phase % 2].take(worker)) >= 0;)
        times[static_cast<size_t>(phase * kPieces + piece)]++;
      pool.barrier();
    }
  });
  EXPECT_TRUE(std::ranges::all_of(times, [](int count) { return count == 1; }));
}

TEST(CutInHalves, DownToTheSmallest) {
  const auto cuts = [](int64_t count, int64_t smallest) {
    std::vector<int64_t> ends;
    int64_t before = 0;
    cut_in_halves(count, smallest, [&](int64_t first, int64_t last) {
      EXPECT_EQ(first, before);
      ends.push_back(before = last);
    });
    return ends;
  };
  EXPECT_EQ(cuts(24, 1), (std::vector<int64_t>{12, 18, 21, 22, 23, 24}));
  EXPECT_EQ(cuts(24, 5), (std::vector<int64_t>{12, 18, 23, 24}));
  EXPECT_EQ(cuts(3, 8), (std::vector<int64_t>{3}));
  EXPECT_EQ(cuts(0, 1), std::vector<int64_t>{});
}

}  // namespace
}  // namespace nibble
