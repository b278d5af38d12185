// The loader: order, progress, and what happens when reading or packing fails.
#include <gtest/gtest.h>

#include "memory_checkpoint.h"
#include "weights/weight_table.h"

namespace nibble {
namespace {

// `count` matrices of 1 x 2 and a vector after each.
MemoryCheckpoint checkpoint_of(int count) {
  MemoryCheckpoint checkpoint(Container::safetensors);
  for (int i = 0; i < count; i++) {
    const auto value = static_cast<float>(i);
    checkpoint.add(fmt::format("m{}.weight", i), DType::f32, {1, 2}, bytes_of<float>({value, value + 0.5f}));
    checkpoint.add(fmt::format("v{}", i), DType::f32, {1}, bytes_of<float>({-value}));
  }
  return checkpoint;
}

struct Table {
  explicit Table(int count) : checkpoint(checkpoint_of(count)), source(checkpoint.open()), weights(*source) {
    for (int i = 0; i < count; i++) {
      weights.matrix({.name = {fmt::format("m{}", i), {}}, .N = 1, .K = 2});
      weights.vector({.name = {fmt::format("v{}", i), {}}, .size = 1});
    }
  }
  MemoryCheckpoint checkpoint;
  std::unique_ptr<WeightSource> source;
  WeightTable weights;
};

TEST(LoadWeights, AllComeInOrderWithProgress) {
  const Table table(50);
  std::vector<float> seen;
  std::vector<int64_t> done;
  load_weights(table.weights,
               {.matrix =
                    [&](WeightId id, const CanonicalWeight& w) {
                      EXPECT_EQ(id.index, static_cast<int>(seen.size()));
                      seen.push_back(decoded(w)[1]);
                    },
                .vector =
                    [&](WeightId id, std::span<const float> v) {
                      EXPECT_EQ(id.index, static_cast<int>(seen.size()));
                      seen.push_back(v[0]);
                    }},
               [&](int64_t d, int64_t all) {
                 done.push_back(d);
                 EXPECT_EQ(all, 50 * 12);
               });
  ASSERT_EQ(seen.size(), 100u);
  for (int i = 0; i < 50; i++) {
    EXPECT_EQ(seen[static_cast<size_t>(2 * i)], static_cast<float>(i) + 0.5f);
    EXPECT_EQ(seen[static_cast<size_t>(2 * i + 1)], static_cast<float>(-i));
  }
  EXPECT_EQ(done.back(), 50 * 12);
  EXPECT_EQ(done.size(), 100u);
}

TEST(LoadWeights, AnErrorOfTheSinkEndsIt) {
  const Table table(50);
  int calls = 0;
  const WeightSink sink{.matrix =
                            [&](WeightId, const CanonicalWeight&) {
                              if (++calls == 3) throw_input_error("no kernel");
                            },
                        .vector = [](WeightId, std::span<const float>) {}};
  EXPECT_EQ(input_error([&] { load_weights(table.weights, sink, {}); }), "m2: no kernel");
  EXPECT_EQ(calls, 3);
}

TEST(LoadWeights, AnErrorOfTheSourceComesAfterWhatWasRead) {
  Table table(4);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  table.checkpoint.storage[4] = bytes_of<float>({nan, 1.0f});  // m2, in place
  table.checkpoint.checkpoint->tensors.find("m2.weight")->second.bytes = table.checkpoint.storage[4];
  int matrices = 0;
  const WeightSink sink{.matrix = [&](WeightId, const CanonicalWeight&) { matrices++; },
                        .vector = [](WeightId, std::span<const float>) {}};
  const std::string message = input_error([&] { load_weights(table.weights, sink, {}); });
  EXPECT_NE(message.find("m2.weight"), std::string::npos) << message;
  EXPECT_EQ(matrices, 2);
}

TEST(LoadWeights, ASinkMayCheckFloatsItself) {
  Table table(4);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  table.checkpoint.storage[4] = bytes_of<float>({1.0f, nan});  // m2, in place
  table.checkpoint.checkpoint->tensors.find("m2.weight")->second.bytes = table.checkpoint.storage[4];
  int matrices = 0;
  const WeightSink sink{.matrix =
                            [&](WeightId, const CanonicalWeight& w) {
                              matrices++;
                              EXPECT_NE(w.unchecked_floats, "");
                              CanonicalRows(w).checked_row(0, 0);
                            },
                        .vector = [](WeightId, std::span<const float>) {},
                        .checks_floats = true};
  EXPECT_EQ(input_error([&] { load_weights(table.weights, sink, {}); }),
            "model: tensor m2.weight: element 1 is nan, a finite number expected; the file is damaged");
  EXPECT_EQ(matrices, 3);
}

TEST(LoadWeights, SmallWeightsMayAllBeInMemory) {
  EXPECT_EQ(largest_load(Table(3).weights), 3 * 12);
  EXPECT_EQ(largest_load(Table(0).weights), 0);
}

TEST(LoadWeights, WhatIsCopiedIsInMemoryTwice) {
  MemoryCheckpoint file(Container::gguf);
  file.add("x.weight", DType::q8_0, {2, 32}, std::vector<uint8_t>(68))
      .add("y.weight", DType::f32, {1, 32}, std::vector<uint8_t>(128));
  const auto source = file.open();
  WeightTable table(*source);
  table.matrix({.name = {"x", "x"}, .N = 2, .K = 32});
  table.matrix({.name = {"y", "y"}, .N = 1, .K = 32});
  EXPECT_EQ(largest_load(table), 2 * 68 + 128);
}

TEST(LoadWeights, AnEmptyTableIsLoaded) {
  const Table table(0);
  load_weights(table.weights, {}, {});
}

}  // namespace
}  // namespace nibble
