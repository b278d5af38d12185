#include "base/hash.h"

#include <numeric>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/pieces.h"

namespace nibble {
namespace {

std::vector<uint8_t> counted(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

TEST(Hash, DependsOnEveryBitTheSizeAndTheSeed) {
  for (const size_t size : {0, 1, 7, 16, 127, 128, 129, 1000}) {
    std::vector<uint8_t> bytes = counted(size);
    std::set<uint64_t> hashes = {hash_bytes(bytes), hash_bytes(bytes, 1)};
    for (size_t bit = 0; bit < 8 * size; bit++) {
      bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
      hashes.insert(hash_bytes(bytes));
      bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    }
    EXPECT_EQ(hashes.size(), 8 * size + 2) << size;
  }
  std::set<uint64_t> zeros;
  for (size_t size = 0; size < 300; size++) zeros.insert(hash_bytes(std::vector<uint8_t>(size)));
  EXPECT_EQ(zeros.size(), 300u);
}

// Files hold it: it may change only together with their version.
TEST(Hash, IsTheSameForEver) {
  EXPECT_EQ(hash_bytes({}), 13594407941142021010u);
  EXPECT_EQ(hash_bytes(counted(1000), 5), 1455031689879740156u);
}

TEST(Pieces, AreEachDoneOnceAndRethrow) {
  std::vector<int> counts(1000);
  for_each_piece(counts.size(), 3, [&](size_t piece, size_t thread) {
    EXPECT_LT(thread, 3u);
    counts[piece]++;
  });
  EXPECT_EQ(counts, std::vector<int>(1000, 1));
  for_each_piece(0, 3, [](size_t, size_t) { FAIL(); });
  EXPECT_THROW(for_each_piece(10, 4, [](size_t, size_t) { throw_run_error("no"); }), RunError);
}

}  // namespace
}  // namespace nibble
