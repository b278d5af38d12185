// What hwloc knows of the machine's processors, caches and memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

struct CacheLevel {
  int level;
  int64_t bytes;  // of one cache of this level
};

struct Topology {
  std::string cpu_name;
  int num_cores = 0, num_processors = 0, num_numa_nodes = 0;
  // The system's numbers of the processors that this process may use, by NUMA node; nodes that add none are left out.
  std::vector<std::vector<int>> node_processors;
  std::vector<CacheLevel> caches;      // data or unified, level 1 first
  int64_t last_level_cache_bytes = 0;  // of all caches of the last level together
  int64_t memory_bytes = 0;
};

// What is unknown stays empty or 0. Throws RunError if the topology cannot be read at all.
Topology read_topology();

}  // namespace nibble
