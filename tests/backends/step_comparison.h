// Compares the steps of the backend under test with the reference's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "backends/step_program.h"

namespace nibble {

using Runs = std::vector<std::vector<Place>>;

// The backend under test in each way in which it can run, all of which give the same bits. Each backend that takes these
// tests defines it: cpu_under_test.cc, metal_under_test.cc.
std::vector<std::unique_ptr<Backend>> backends_under_test();

// What their attention may be off by, in parts of the largest value.
float attention_tolerance(KvCacheType type);

// The types of KV cache that they have.
inline std::vector<KvCacheType> kv_cache_types_under_test() {
  const auto backends = backends_under_test();
  const std::span<const KvCacheType> types = backends[0]->kv_cache_types();
  return {types.begin(), types.end()};
}

inline std::vector<float> backend_values(const StepProgram& program, const Runs& runs) {
  const auto backends = backends_under_test();
  const std::vector<float> first = program.run(*backends[0], runs);
  for (size_t i = 1; i < backends.size(); i++) {
    const auto other = program.run(*backends[i], runs);
    EXPECT_TRUE(std::memcmp(other.data(), first.data(), first.size() * sizeof(float)) == 0)
        << backends[i]->description() << ", the " << i + 1 << "th way";
  }
  return first;
}

// Within `tolerance` of the largest of the expected values.
inline void expect_near(const std::vector<float>& values, const std::vector<float>& expected, float tolerance) {
  ASSERT_EQ(values.size(), expected.size());
  float largest = 1e-6f;
  for (float value : expected) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < values.size(); i++) ASSERT_NEAR(values[i], expected[i], tolerance * largest) << i;
}

inline void expect_reference(const StepProgram& program, const Runs& runs, float tolerance) {
  expect_near(backend_values(program, runs), program.run(*make_reference_backend(), runs), tolerance);
}

}  // namespace nibble
