// Under ThreadSanitizer: a race of each kind is reported, in every order, and no race where there is none.
#include <gtest/gtest.h>

#include "base/worker_pool.h"
#include "simt/kernel_runs.h"

namespace {
int num_reports = 0;
}

// Called by ThreadSanitizer. Its reports are expected here: they don't fail the program.
extern "C" [[clang::disable_sanitizer_instrumentation]] void __tsan_on_report(void*) { num_reports++; }
extern "C" [[clang::disable_sanitizer_instrumentation]] const char* __tsan_default_options() { return "exitcode=0"; }

namespace nibble::simt {
namespace {

bool has_race(const char* kernel, uint32_t num_threadgroups, LaneOrder order) {
  static WorkerPool pool(2);
  std::vector<float> out(size_t{64} * num_threadgroups);
  num_reports = 0;
  dispatch(make_pipeline(kernel), buffers_of(out),
           {.threadgroups = {num_threadgroups}, .threads = {64}, .workers = &pool, .order = order});
  return num_reports > 0;
}

// ThreadSanitizer reports a pair of lines once: an order for each process.
TEST(SimtRaces, EachKindIsReported) {
  EXPECT_TRUE(has_race("lacks_barrier", 1, LaneOrder::ascending));
  EXPECT_TRUE(has_race("lacks_second_barrier", 1, LaneOrder::descending));
  EXPECT_TRUE(has_race("trusts_lockstep", 1, LaneOrder::shuffled));
  EXPECT_TRUE(has_race("shares_element", 2, LaneOrder::ascending));
}

TEST(SimtRaces, NoneWhereThereIsNone) {
  for (LaneOrder order : kLaneOrders) {
    EXPECT_FALSE(has_race("simdgroup_functions", 8, order));
    EXPECT_FALSE(has_race("diverged_functions", 8, order));
    EXPECT_FALSE(has_race("diverged_loop", 8, order));
    EXPECT_FALSE(has_race("reads_unwritten", 1, order));
  }
}

}  // namespace
}  // namespace nibble::simt
