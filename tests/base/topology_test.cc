#include "base/topology.h"

#include <gtest/gtest.h>

#include "base/memory.h"

namespace nibble {
namespace {

TEST(Topology, IsPlausible) {
  const Topology t = read_topology();
  EXPECT_GE(t.num_cores, 1);
  EXPECT_GE(t.num_processors, t.num_cores);
  EXPECT_GE(t.num_numa_nodes, 1);
  EXPECT_GE(t.memory_bytes, static_cast<int64_t>(available_memory_bytes()));
  EXPECT_GE(t.last_level_cache_bytes, t.caches.empty() ? 0 : t.caches.back().bytes);
  for (size_t i = 1; i < t.caches.size(); i++) EXPECT_GT(t.caches[i].level, t.caches[i - 1].level);
}

}  // namespace
}  // namespace nibble
