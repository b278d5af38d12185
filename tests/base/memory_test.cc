#include "base/memory.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"

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

TEST(HugePageArena, GivesZeroedPartsThatDoNotOverlap) {
  HugePageArena arena;
  std::vector<std::pair<std::shared_ptr<uint8_t>, size_t>> parts;
  for (size_t size :
       {size_t{0}, size_t{1}, size_t{100}, size_t{20} << 20, size_t{30} << 20, size_t{30} << 20, size_t{40} << 20})
    parts.emplace_back(arena.allocate(size), size);
  std::ranges::sort(parts, {}, [](const auto& part) { return part.first.get(); });
  const uint8_t* end = nullptr;
  for (const auto& [part, size] : parts) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(part.get()) % 64, 0u);
    EXPECT_GE(part.get(), end);
    end = part.get() + size + Buffer::kSlack;
    EXPECT_TRUE(std::all_of(part.get(), part.get() + size, [](uint8_t b) { return b == 0; }));
    std::fill_n(part.get(), size, uint8_t{7});
  }
}

TEST(HugePageArena, KeepsPartsThatOutliveIt) {
  std::shared_ptr<uint8_t> part;
  {
    HugePageArena arena;
    part = arena.allocate(1000);
    arena.allocate(size_t{32} << 20);
    arena.allocate(size_t{32} << 20);
  }
  std::fill_n(part.get(), 1000, uint8_t{7});
  EXPECT_EQ(part.get()[999], 7);
}

TEST(BufferPool, GivesTheSmallestBufferThatFitsAgain) {
  constexpr size_t kMb = size_t{1} << 20;
  BufferPool pool;
  const auto held = pool.take(2 * kMb);  // while it is, the others stay
  auto small = pool.take(3 * kMb), large = pool.take(5 * kMb);
  const uint8_t *small_at = small->data(), *large_at = large->data();
  small.reset();
  large.reset();
  const auto first = pool.take(2 * kMb + 1), second = pool.take(4 * kMb), third = pool.take(7 * kMb);
  EXPECT_EQ(first->data(), small_at);
  EXPECT_EQ(second->data(), large_at);
  EXPECT_GE(third->size(), 7 * kMb);
  EXPECT_EQ(pool.take(100)->size(), 100u);
}

TEST(BufferPool, BuffersMayOutliveIt) {
  std::shared_ptr<const Buffer> buffer;
  {
    BufferPool pool;
    buffer = pool.take(size_t{3} << 20);
  }
  std::ranges::fill(buffer->bytes(), uint8_t{7});
  EXPECT_EQ(buffer->bytes().back(), 7);
}

TEST(BufferPool, IsUsableWhenThereWasNoMemory) {
  BufferPool pool;
  EXPECT_THROW(pool.take(size_t{1} << 60), RunError);
  EXPECT_EQ(pool.take(size_t{3} << 20)->size(), size_t{3} << 20);
}

TEST(AvailableMemory, IsPlausible) { EXPECT_GT(available_memory_bytes(), size_t{1} << 20); }

}  // namespace
}  // namespace nibble
