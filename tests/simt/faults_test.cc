// Kernels that are wrong on purpose (faults.metal): the executor finds each, and names its line.
#include <cmath>

#include <gtest/gtest.h>

#include "base/error.h"
#include "simt/kernel_runs.h"

namespace nibble::simt {
namespace {

// On 64 threads.
std::string fault_of(const char* kernel, LaneOrder order, SharedBytes threadgroup_bytes = {}) {
  std::vector<float> out(64);
  Arguments arguments = buffers_of(out);
  arguments.threadgroup_bytes = threadgroup_bytes;
  return fault_in([&] { dispatch(make_pipeline(kernel), arguments, {.threads = {64}, .order = order}); });
}

TEST(SimtFaults, RendezvousThatNotAllReach) {
  for (LaneOrder order : kLaneOrders) {
    EXPECT_EQ(fault_of("skips_barrier", order),
              "kernel skips_barrier: a barrier not reached by every thread: thread 0 waits at "
              "tests/simt/faults.metal:8, thread 40 has returned, threadgroup (0, 0, 0)");
    EXPECT_EQ(fault_of("two_barriers", order),
              "kernel two_barriers: threads wait at different barriers: thread 0 waits at "
              "tests/simt/faults.metal:14, thread 32 at tests/simt/faults.metal:16, threadgroup (0, 0, 0)");
    EXPECT_PRED2(contains, fault_of("diverged_simdgroup_barrier", order),
                 "a collective names a lane that does not come");
    EXPECT_PRED2(contains, fault_of("diverged_simdgroup_barrier", order),
                 "waits at tests/simt/faults.metal:22, thread");
    EXPECT_PRED2(contains, fault_of("lone_matrix", order), "tests/simt/faults.metal:31, thread");
  }
}

TEST(SimtFaults, MatricesOfHalfASimdgroup) {
  std::vector<float> out(64);
  EXPECT_PRED2(contains, fault_in([&] { dispatch(make_pipeline("lone_matrix"), buffers_of(out), {.threads = {16}}); }),
               "a matrix multiplication in a threadgroup that is no multiple of 32 threads: thread 0 at "
               "tests/simt/faults.metal:31");
}

TEST(SimtFaults, TheThreadgroupAtFault) {
  std::vector<float> out(192);
  EXPECT_PRED2(contains, fault_in([&] {
                 dispatch(make_pipeline("skips_barrier"), buffers_of(out),
                          {.threadgroups = {3}, .threads = {64}, .order = LaneOrder::descending});
               }),
               "threadgroup (0, 0, 0)");
}

TEST(SimtFaults, Arguments) {
  std::vector<float> out(64);
  const auto fault = [](const char* kernel, const Arguments& a) {
    return fault_in([&] { dispatch(make_pipeline(kernel), a, {.threads = {64}}); });
  };
  EXPECT_EQ(fault("skips_barrier", {}), "kernel skips_barrier: no buffer bound at index 0");
  const uint32_t sizes[2] = {1, 2};
  Arguments a = buffers_of(out);
  a.buffers[1] = {const_cast<uint32_t*>(sizes), 4};
  EXPECT_EQ(fault("reads_sizes", a), "kernel reads_sizes: the buffer at index 1 has 4 bytes, the kernel reads 8");
  a.buffers[1].bytes = 8;
  EXPECT_EQ(fault("reads_sizes", a), "");
  a.buffers[0].data = out.data() + 1;
  EXPECT_EQ(fault("reads_sizes", a), "kernel reads_sizes: the buffer at index 0 is not aligned to 16 bytes");
  EXPECT_EQ(fault("shared_bytes", buffers_of(out)), "kernel shared_bytes: threadgroup memory 1 has no length");
  EXPECT_EQ(fault("no_such_kernel", buffers_of(out)), "no Metal kernel is named no_such_kernel");
  EXPECT_EQ(fault("needs_constant", buffers_of(out)),
            "kernel needs_constant: function constant 3 (kLast) has no value");
  const ConstantValue wrong[] = {function_constant(3, true)};
  EXPECT_EQ(fault_in([&] { make_pipeline("needs_constant", wrong); }),
            "kernel needs_constant: function constant 3 (kLast) has 4 bytes, 1 given");
}

TEST(SimtFaults, Sizes) {
  std::vector<float> out(64);
  const auto fault = [&](Size3 threads, SharedBytes bytes) {
    Arguments a = buffers_of(out);
    a.threadgroup_bytes = bytes;
    return fault_in([&] { dispatch(make_pipeline("shared_bytes"), a, {.threads = threads}); });
  };
  EXPECT_EQ(fault({0}, {0, 256}), "kernel shared_bytes: a threadgroup of 0 threads, 1 to 1024 expected");
  EXPECT_EQ(fault({32, 33}, {0, 256}), "kernel shared_bytes: a threadgroup of 1056 threads, 1 to 1024 expected");
  EXPECT_EQ(fault({64}, {32768, 256}), "kernel shared_bytes: 33024 bytes of threadgroup memory, 32768 at most");
  EXPECT_EQ(fault({64}, {32512, 256}), "");
  EXPECT_PRED2(contains, fault_of("too_much_memory", LaneOrder::ascending, {16640}),
               "33024 bytes of threadgroup memory, 32768 at most, at tests/simt/faults.metal:41");
  EXPECT_EQ(fault_of("too_much_memory", LaneOrder::ascending, {16384}), "");
}

TEST(SimtFaults, UnwrittenThreadgroupMemoryIsNotZero) {
  for (int repeat = 0; repeat < 2; repeat++) {  // nor what another threadgroup left there
    std::vector<float> out(64);
    dispatch(make_pipeline("reads_unwritten"), buffers_of(out), {.threads = {64}});
    for (size_t i = 0; i < 64; i++) EXPECT_EQ(std::isnan(out[i]), i == 5);
  }
}

#ifndef NIBBLE_TEST_TSAN
// A missing barrier shows as a result that is not the same in each order.
TEST(SimtFaults, OrdersTellRightFromWrong) {
  for (const char* kernel : {"lacks_barrier", "lacks_second_barrier", "trusts_lockstep", "shares_element"}) {
    std::vector<std::vector<float>> results;
    for (LaneOrder order : kLaneOrders) {
      std::vector<float> out(128);
      dispatch(make_pipeline(kernel), buffers_of(out),
               {.threadgroups = {kernel[0] == 's' ? 2u : 1u}, .threads = {64}, .order = order});
      results.push_back(out);
    }
    EXPECT_FALSE(results[0] == results[1] && results[0] == results[2]) << kernel;
  }
}
#endif

#ifdef NIBBLE_TEST_ASAN
TEST(SimtFaultsDeathTest, AccessesOutOfBounds) {
  std::vector<float> out(64);
  const auto run = [&](const char* kernel, SharedBytes bytes) {
    Arguments a = buffers_of(out);
    a.threadgroup_bytes = bytes;
    dispatch(make_pipeline(kernel), a, {.threads = {64}});
  };
  EXPECT_DEATH(run("reads_past_buffer", {}), "heap-buffer-overflow");
  EXPECT_DEATH(run("writes_past_buffer", {}), "heap-buffer-overflow");
  EXPECT_DEATH(run("writes_past_variable", {}), "use-after-poison");
  EXPECT_DEATH(run("writes_past_piece", {252, 256}), "use-after-poison");
  EXPECT_DEATH(run("writes_past_piece", {256, 252}), "use-after-poison");
  run("writes_past_piece", {256, 256});
}
#endif

}  // namespace
}  // namespace nibble::simt
