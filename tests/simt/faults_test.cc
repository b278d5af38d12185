// Kernels that are wrong on purpose: the executor finds each, and names its line.
#include <gtest/gtest.h>

#include "base/error.h"
#include "simt/metal/kernels.h"

namespace nibble::simt {
namespace {

// What running the kernel on 64 threads throws; empty if it ends well.
std::string fault_of(const char* kernel, LaneOrder order, std::vector<float>& out) {
  Arguments arguments;
  arguments.buffers[0] = {out.data(), out.size() * sizeof(float)};
  try {
    dispatch(make_pipeline(kernel), arguments, {.threads = {64}, .order = order});
    return "";
  } catch (const InputError& e) {
    return e.what();
  }
}

TEST(SimtFaults, NamesWhoWaitsWhere) {
  for (LaneOrder order : kLaneOrders) {
    std::vector<float> out(64);
    EXPECT_EQ(fault_of("skips_barrier", order, out),
              "kernel skips_barrier: a barrier not reached by every thread: thread 0 waits at "
              "tests/simt/faults.metal:7, thread 40 has returned, threadgroup (0, 0, 0)");
    EXPECT_EQ(fault_of("two_barriers", order, out),
              "kernel two_barriers: threads wait at different barriers: thread 0 waits at tests/simt/faults.metal:13, "
              "thread 32 "
              "at tests/simt/faults.metal:15, threadgroup (0, 0, 0)");
  }
}

TEST(SimtFunctions, GiveWhatMetalGives) {
  for (LaneOrder order : kLaneOrders) {
    std::vector<float> out(64);
    EXPECT_EQ(fault_of("simd_functions", order, out), "");
    EXPECT_EQ(out, std::vector<float>(64, 1));
    EXPECT_EQ(fault_of("diverged_sum", order, out), "");
    for (size_t i = 0; i < 64; i++) EXPECT_EQ(out[i], i % 32 < 10 ? 10 : 22);
  }
}

}  // namespace
}  // namespace nibble::simt
