// Caches of layers with windows keep no more than the window and some spare positions, in a ring: the backend under test
// gives what it gives with a cache that forgets nothing, and what the reference gives.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/attention_program.h"

namespace nibble {
namespace {

void expect_what_a_cache_of_all_gives(const AttentionHeads& s, int64_t spare, int64_t M, int64_t num_positions,
                                      KvCacheType type) {
  SCOPED_TRACE(fmt::format("window {}, spare {}, M {}, {}", s.window, spare, M, kv_cache_type_name(type)));
  const StepProgram ring = attention_program(s, M, num_positions, type, spare);
  const StepProgram all = attention_program(s, M, num_positions, type);
  ASSERT_EQ(ring.cache_shape.kept(ring.cache_shape.layers[0]), s.window + spare);
  ASSERT_EQ(all.cache_shape.kept(all.cache_shape.layers[0]), num_positions);
  const auto values = backend_values(ring, steps_of(M, num_positions));
  EXPECT_EQ(values, backend_values(all, steps_of(M, num_positions)));
  const auto expected = all.run(*make_reference_backend(), steps_of(M, num_positions));
  EXPECT_EQ(ring.run(*make_reference_backend(), steps_of(M, num_positions)), expected);
  expect_near(values, expected, attention_tolerance(type));
}

TEST(KvRing, GivesWhatACacheOfAllPositionsGives) {
  for (const AttentionHeads& s : {AttentionHeads{3, 1, 20, 7}, {4, 2, 16, 1}}) {
    for (const int64_t spare : {0, 5}) {
      for (const int64_t M : {int64_t{1}, spare + 1}) {
        for (const KvCacheType type : kv_cache_types_under_test()) {
          if (type == KvCacheType::f32) continue;  // rows like f16's
          expect_what_a_cache_of_all_gives(s, spare, M, 30, type);
        }
      }
    }
  }
}

// Where positions of 8 bits are interleaved, a ring has a multiple of 64 rows: here 128 and 64, all of them written anew.
TEST(KvRing, OfEightBitsGoesRoundWhereRowsAreInterleaved) {
  const std::vector<KvCacheType> types = kv_cache_types_under_test();
  if (std::ranges::find(types, KvCacheType::q8_0) == types.end()) GTEST_SKIP() << "no cache of 8 bits";
  constexpr int64_t kPositions = 300;
  for (const auto& [window, spare] : {std::pair<int64_t, int64_t>{70, 5}, {64, 0}}) {
    const AttentionHeads s{4, 2, 40, window};
    const auto backend = std::move(backends_under_test()[0]);
    EXPECT_LT(2 * backend->kv_cache_bytes(attention_program(s, 1, kPositions, KvCacheType::q8_0, spare).cache_shape),
              backend->kv_cache_bytes(attention_program(s, 1, kPositions, KvCacheType::q8_0).cache_shape));
    expect_what_a_cache_of_all_gives(s, spare, spare + 1, kPositions, KvCacheType::q8_0);
  }
}

TEST(KvRing, GoesBackByItsSpare) {
  // 9 positions, back to the fifth, and on again: the ring has 4 + 4 rows.
  const AttentionHeads s{2, 1, 8, 4};
  Runs runs = steps_of(1, 9), again = steps_of(1, 12);
  runs.insert(runs.end(), again.begin() + 5, again.end());
  for (const KvCacheType type : kv_cache_types_under_test()) {
    const auto values = backend_values(attention_program(s, 1, 30, type, 4), runs);
    EXPECT_EQ(last_rows(values, 16, 7), last_rows(backend_values(attention_program(s, 1, 30, type), again), 16, 7));
  }
}

TEST(KvRing, KeepsNoMoreThanItsWindow) {
  const KvCacheShape shape{.layers = {{10, 6, 8}, {10, 6, 0}}, .num_sequences = 3, .max_len = 100, .spare = 5};
  EXPECT_EQ(shape.kept(shape.layers[0]), 13);
  EXPECT_EQ(shape.kept(shape.layers[1]), 100);
  EXPECT_EQ(shape.bytes(), 3 * 16 * (13 + 100) * 2);
  const KvCacheShape small{.layers = {{10, 6, 8}}, .max_len = 9, .spare = 5};
  EXPECT_EQ(small.kept(small.layers[0]), 9);  // never more than there are

  EXPECT_TRUE(shape.can_resume(90, 90));
  EXPECT_TRUE(shape.can_resume(90, 84));  // position 84 reads 77 … 84, and 77 … 89 are there
  EXPECT_FALSE(shape.can_resume(90, 83));
  EXPECT_TRUE(shape.can_resume(90, 0));
  EXPECT_FALSE(shape.can_resume(90, 1));
  EXPECT_TRUE(shape.can_resume(13, 1));
  EXPECT_FALSE(shape.can_resume(14, 1));
  const KvCacheShape none{.layers = {{10, 6}}, .max_len = 100, .spare = 0};
  EXPECT_TRUE(none.can_resume(100, 1));
}

}  // namespace
}  // namespace nibble
