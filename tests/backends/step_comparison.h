// Compares the CPU's steps with the reference's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "backends/step_program.h"

namespace nibble {

using Runs = std::vector<std::vector<Place>>;

// The CPU's values, the same on 1, 2 and 3 threads.
inline std::vector<float> cpu_values(const StepProgram& program, const Runs& runs) {
  const std::vector<float> first = program.run(*make_cpu_backend(1), runs);
  for (int num_threads : {2, 3}) {
    const auto other = program.run(*make_cpu_backend(num_threads), runs);
    EXPECT_TRUE(std::memcmp(other.data(), first.data(), first.size() * sizeof(float)) == 0)
        << num_threads << " threads";
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
  expect_near(cpu_values(program, runs), program.run(*make_reference_backend(), runs), tolerance);
}

}  // namespace nibble
