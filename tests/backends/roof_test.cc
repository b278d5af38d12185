#include "backends/cpu/roof.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

#ifndef NIBBLE_SANITIZED
TEST(ReadRoof, TheBufferIsLargerThanTheCachesTogether) {
  EXPECT_EQ(read_roof_bytes(0), 1024 * kMiB);
  EXPECT_EQ(read_roof_bytes(1), 256 * kMiB);
  EXPECT_EQ(read_roof_bytes(96 * kMiB), 384 * kMiB);
  EXPECT_EQ(read_roof_bytes(300 * kMiB), 1200 * kMiB);
  EXPECT_EQ(read_roof_bytes(1152 * kMiB), 2048 * kMiB);
}
#endif

TEST(ReadRoof, ReadsPiecesPastTheEndAndMoreThanThereIs) {
  WorkerPool pool(3);
  ReadRoof roof(pool, 5 * 4096 + 1);
  for (const int64_t bytes : {int64_t{1}, int64_t{4096}, int64_t{3 * 4096}, 4 * kMiB})
    for (int i = 0; i < 3; i++) EXPECT_GT(roof.measure_gbps(pool, bytes), 0) << bytes;
}

}  // namespace
}  // namespace nibble
