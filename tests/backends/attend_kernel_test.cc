// attend_chunk of every table of this machine, and of AMX's over emulated tiles, against the same sums in double.
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/cpu/float_kernels.h"
#include "backends/cpu/kernels.h"
#include "backends/kernels_under_test.h"
#include "backends/random_floats.h"
#include "base/memory.h"
#include "formats/f16.h"

namespace nibble {

#ifdef NIBBLE_EMULATED_AMX
extern const FloatKernels kEmulatedAmxFloatKernels;
#endif

namespace {

struct Case {
  int heads;
  int64_t head_dim, v_dim, len;
  int64_t first_row = 0, num_rows = kAttendChunk;
  bool values_are_keys = false;
};

// Over a cache of q8_0 those that multiply integers round queries to 16 bits, and weights to 16; AVX2's and NEON's to 15.
double tolerance(const FloatKernels& kernels, KvCacheType type) {
  if (type != KvCacheType::q8_0 || !kernels.interleaves_q8_0) return 2e-5;
  return kernels.name == "avx2" || kernels.name.starts_with("neon") ? 2e-4 : 1e-4;
}

const Case kCases[] = {
    {1, 16, 16, 1},
    {2, 64, 64, 15},
    {3, 20, 20, 17},
    {4, 96, 96, 61},
    {4, 33, 33, 31, 20, 40},
    {5, 80, 80, 33},
    {10, 64, 64, 512},
    {8, 8, 8, 16, 30, 31},
    {8, 128, 128, 40, 40},
    {16, 72, 72, 64},
    {20, 576, 512, 70, 0, kAttendChunk, true},
    {23, 40, 32, 49, 0, kAttendChunk, true},
    {25, 1, 1, 3},
    {51, 34, 34, 97, 490, kAttendChunk},
};

// Rows of a key or value head: what was put in, and what a cache of that type makes of it.
struct Rows {
  Rows(const FloatKernels& kernels, KvCacheType type, KvLayout layout, int64_t num_rows, int64_t width, float size,
       unsigned seed)
      : type(type),
        layout(type != KvCacheType::q8_0  ? KvLayout::floats
               : kernels.interleaves_q8_0 ? layout
                                          : KvLayout::codes),
        width(width),
        num_rows(num_rows),
        num_groups((width + Q8_0::group_size - 1) / Q8_0::group_size),
        row_bytes(type == KvCacheType::q8_0 ? num_groups * Q8_0::group_size : kv_cache_row_bytes(type, width)),
        bytes(static_cast<size_t>(type == KvCacheType::q8_0
                                      ? (num_rows + kKvBlock - 1) / kKvBlock * kv_block_bytes(row_bytes)
                                      : num_rows * row_bytes)) {
    std::mt19937 random(seed);
    std::vector<float> row(static_cast<size_t>(width));
    for (int64_t r = 0; r < num_rows; r++) {
      for (float& x : row) x = random_float(random) * size;
      store(kernels, r, row);
    }
    for (int64_t r = 0; r < num_rows; r++)
      for (int64_t d = 0; d < width; d++) decoded.push_back(value(r, d));
  }
  void store(const FloatKernels& kernels, int64_t r, std::span<const float> row) {
    kernels.store(row.data(), width, type, row_at(r));
  }
  KvRow row_at(int64_t r) const { return kv_row(layout, bytes.data(), row_bytes, r); }
  double value(int64_t r, int64_t d) const {
    const KvRow at = row_at(r);
    const uint8_t* row = at.values;
    if (type == KvCacheType::f32) return reinterpret_cast<const float*>(row)[d];
    if (type == KvCacheType::f16) return half_to_float(reinterpret_cast<const uint16_t*>(row)[d]);
    const uint16_t scale = at.scales[d / Q8_0::group_size * kKvBlock];
    const int64_t unit = std::max<int64_t>(at.unit_bytes, 1), stride = std::max<int64_t>(at.unit_stride, 1);
    return static_cast<double>(static_cast<int8_t>(row[d / unit * stride + d % unit])) * half_to_float(scale);
  }
  KvRun run(int64_t first_row) const {
    return {.values = bytes.data(), .row_bytes = row_bytes, .num_rows = num_rows, .first_row = first_row};
  }
  KvCacheType type;
  KvLayout layout;
  int64_t width, num_rows, num_groups, row_bytes;
  Buffer bytes;
  std::vector<double> decoded;  // [num_rows, width]
};

struct Result {
  std::vector<float> largest, total, out;
  bool operator==(const Result&) const = default;
};

struct Problem {
  Problem(const FloatKernels& kernels, const Case& c, KvCacheType type, float size = 1.0f)
      : c(c),
        type(type),
        interleaved(type == KvCacheType::q8_0 && kernels.interleaves_q8_0),
        num_rows(interleaved ? (c.num_rows + kKvBlock - 1) / kKvBlock * kKvBlock : c.num_rows),
        skip(interleaved ? c.first_row % kKvBlock : 0),
        keys(kernels, type, KvLayout::keys, num_rows, c.head_dim, size, 1),
        values(kernels, type, KvLayout::values, c.values_are_keys ? 0 : num_rows, c.v_dim, size, 2),
        q(static_cast<size_t>(c.heads * stride)) {
    std::mt19937 random(3);
    for (float& x : q) x = random_float(random);
    scale = 1.0f / size / std::sqrt(static_cast<float>(c.head_dim));
  }

  // Heads [first, last) in a call.
  Result run(const FloatKernels& kernels, int first, int last) const {
    const auto heads = static_cast<size_t>(last - first);
    Result result{std::vector<float>(heads), std::vector<float>(heads),
                  std::vector<float>(heads * static_cast<size_t>(c.v_dim))};
    const Buffer scratch(static_cast<size_t>(kernels.attend_scratch(last - first, c.head_dim)) * sizeof(float));
    const KvRun k = keys.run(c.first_row - skip);
    kernels.attend_chunk({.q = q.data() + first * stride,
                          .q_stride = stride,
                          .num_heads = last - first,
                          .heads_of_key = c.heads,
                          .k = k,
                          .v = c.values_are_keys ? k : values.run(c.first_row - skip),
                          .type = type,
                          .len = skip + c.len,
                          .head_dim = c.head_dim,
                          .v_dim = c.v_dim,
                          .skip = skip,
                          .scale_log2 = scale * kLog2e,
                          .same_queries = false,
                          .next_k = k,
                          .next_len = 0,
                          .scores = scratch.as<float>(),
                          .largest = result.largest.data(),
                          .total = result.total.data(),
                          .out = result.out.data()});
    return result;
  }

  // out / total of each head and column.
  std::vector<double> expected() const {
    std::vector<double> all;
    const Rows& v = c.values_are_keys ? keys : values;
    for (int h = 0; h < c.heads; h++) {
      std::vector<double> scores;
      double largest = -INFINITY, total = 0;
      for (int64_t p = 0; p < c.len; p++) {
        double sum = 0;
        for (int64_t d = 0; d < c.head_dim; d++)
          sum += keys.decoded[static_cast<size_t>(row(p) * c.head_dim + d)] * q[static_cast<size_t>(h * stride + d)];
        scores.push_back(sum * scale);
        largest = std::max(largest, scores.back());
      }
      for (double& score : scores) total += score = std::exp(score - largest);
      for (int64_t d = 0; d < c.v_dim; d++) {
        double sum = 0;
        for (int64_t p = 0; p < c.len; p++)
          sum += scores[static_cast<size_t>(p)] * v.decoded[static_cast<size_t>(row(p) * v.width + d)];
        all.push_back(sum / total);
      }
    }
    return all;
  }
  int64_t row(int64_t p) const { return (c.first_row + p) % num_rows; }

  static constexpr int64_t stride = 600;
  const Case& c;
  KvCacheType type;
  bool interleaved;
  int64_t num_rows, skip;
  Rows keys, values;
  std::vector<float> q;
  float scale;
};

std::vector<const FloatKernels*> tables() {
  std::vector<const FloatKernels*> found;
  for (const CpuKernels* kernels : supported_cpu_kernels()) {
    const FloatKernels* table = &float_kernels_of(*kernels);
#ifdef NIBBLE_TEST_SLOW_BUILD  // emulated: what is the same everywhere is tested where it is not
    if (table->name == "generic") continue;
#endif
    if (found.empty() || found.back() != table) found.push_back(table);
  }
#ifdef NIBBLE_EMULATED_AMX
  if (find_kernels("avx512") != nullptr) found.push_back(&kEmulatedAmxFloatKernels);
#endif
  return found;
}

TEST(AttendChunk, GivesWhatDoubleGives) {
  for (const FloatKernels* kernels : tables())
    for (const Case& c : kCases)
      for (const KvCacheType type : kKvCacheTypes) {
        SCOPED_TRACE(fmt::format("{}: {} heads of {} and {}, {} positions, {}", kernels->name, c.heads, c.head_dim,
                                 c.v_dim, c.len, kv_cache_type_name(type)));
        const Problem problem(*kernels, c, type);
        const Result result = problem.run(*kernels, 0, c.heads);
        const std::vector<double> expected = problem.expected();
        for (size_t i = 0; i < expected.size(); i++)
          ASSERT_NEAR(result.out[i] / result.total[i / static_cast<size_t>(c.v_dim)], expected[i],
                      tolerance(*kernels, type))
              << i;
      }
}

// Zeros, denormal halves and the largest ones.
TEST(AttendChunk, TakesHalvesOfAnySize) {
  const Case c{9, 64, 64, 40};
  for (const FloatKernels* kernels : tables())
    for (const float size : {3e-8f, 1e-6f, 1e-4f, 1e4f}) {
      SCOPED_TRACE(fmt::format("{}, {}", kernels->name, size));
      const Problem problem(*kernels, c, KvCacheType::f16, size);
      const Result result = problem.run(*kernels, 0, c.heads);
      const std::vector<double> expected = problem.expected();
      for (size_t i = 0; i < expected.size(); i++)
        ASSERT_NEAR(result.out[i] / result.total[i / 64], expected[i], 2e-5 * size) << i;
    }
}

TEST(AttendChunk, NaNStaysNaN) {
  const Case c{9, 64, 64, 40};
  for (const FloatKernels* kernels : tables()) {
    const Problem problem(*kernels, c, KvCacheType::f16);
    reinterpret_cast<uint16_t*>(problem.values.bytes.data())[3] = 0x7e00;
    const Result result = problem.run(*kernels, 0, c.heads);
    for (int64_t i = 0; i < 9 * 64; i++) ASSERT_EQ(std::isnan(result.out[static_cast<size_t>(i)]), i % 64 == 3) << i;
    reinterpret_cast<uint16_t*>(problem.keys.bytes.data())[3] = 0xfe00;
    for (const float x : problem.run(*kernels, 0, c.heads).out) ASSERT_TRUE(std::isnan(x)) << kernels->name;
  }
}

TEST(AttendChunk, NaNStaysNaNInCachesOfEightBits) {
  constexpr uint16_t kNaN = 0x7e00;
  for (const int heads : {3, 9}) {
    const Case c{heads, 64, 64, 40};
    for (const FloatKernels* kernels : tables()) {
      SCOPED_TRACE(fmt::format("{}, {} heads", kernels->name, heads));
      Problem problem(*kernels, c, KvCacheType::q8_0);
      problem.q[1] = NAN;
      Result result = problem.run(*kernels, 0, heads);
      for (size_t i = 0; i < result.out.size(); i++) ASSERT_EQ(std::isnan(result.out[i]), i < 64) << i;
      problem.q[1] = 1.0f;
      problem.values.row_at(7).scales[kKvBlock] = kNaN;  // of the second group
      result = problem.run(*kernels, 0, heads);
      for (size_t i = 0; i < result.out.size(); i++) ASSERT_EQ(std::isnan(result.out[i]), i % 64 >= 32) << i;
      problem.keys.row_at(0).scales[0] = kNaN;
      for (const float x : problem.run(*kernels, 0, heads).out) ASSERT_TRUE(std::isnan(x));
    }
  }
}

// One position has nearly all of the weight and adds nothing to most columns. The weights of the others are below half a
// 16-bit step, and still add up.
TEST(AttendChunk, SmallWeightsKeepTheirSum) {
  const Case c{9, 32, 32, kAttendChunk};
  for (const FloatKernels* kernels : tables()) {
    Problem problem(*kernels, c, KvCacheType::q8_0);
    std::vector<float> key(32), value(32, 1.0f);
    for (int64_t p = 0; p < c.len; p++) {
      key[0] = p == 0 ? 11.9f : 0.0f;
      for (size_t d = 0; d < 32; d++) value[d] = p == 0 ? 0.0f : 1.0f;
      value[31] = 1.0f;
      problem.keys.store(*kernels, p, key);
      problem.values.store(*kernels, p, value);
    }
    for (int h = 0; h < c.heads; h++) problem.q[static_cast<size_t>(h * Problem::stride)] = std::sqrt(32.0f);
    const Result result = problem.run(*kernels, 0, c.heads);
    const double others = 511 * std::exp(-11.9), expected = others / (1 + others);
    for (size_t i = 0; i < result.out.size(); i++)
      ASSERT_NEAR(result.out[i] / result.total[i / 32], i % 32 == 31 ? 1.0 : expected, 2e-4)
          << kernels->name << ", " << i;
  }
}

TEST(AttendChunk, HeadsDoNotChangeEachOther) {
  for (const FloatKernels* kernels : tables())
    for (const Case& c : kCases)
      for (const KvCacheType type : {KvCacheType::f16, KvCacheType::q8_0}) {
        if (c.len == kAttendChunk) continue;
        const Problem problem(*kernels, c, type);
        const Result all = problem.run(*kernels, 0, c.heads);
        for (int first = 0, count = 1; first < c.heads; first += count, count *= 2) {
          const int last = std::min(first + count, c.heads);
          const Result some = problem.run(*kernels, first, last);
          const auto part = [&](const std::vector<float>& list, int64_t width) {
            return std::vector<float>(list.begin() + first * width, list.begin() + last * width);
          };
          ASSERT_EQ(some, (Result{part(all.largest, 1), part(all.total, 1), part(all.out, c.v_dim)})) << kernels->name;
        }
      }
}

}  // namespace
}  // namespace nibble
