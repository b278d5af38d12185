#include "base/memory.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Buffer, IsZeroedAlignedAndMoves) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{4097}, size_t{3} << 20}) {
    Buffer a(size);
    EXPECT_EQ(a.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 64, 0u);
    EXPECT_TRUE(std::ranges::all_of(a.bytes(), [](uint8_t b) { return b == 0; }));
    if (size > 0) a.data()[size - 1] = 7;
    Buffer b = std::move(a);
    EXPECT_EQ(b.size(), size);
    if (size > 0) {
      EXPECT_EQ(b.data()[size - 1], 7);
    }
  }
}

TEST(AvailableMemory, IsPlausible) { EXPECT_GT(available_memory_bytes(), size_t{1} << 20); }

}  // namespace
}  // namespace nibble
