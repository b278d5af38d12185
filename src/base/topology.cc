#include "base/topology.h"

#include <unistd.h>

#include <memory>

#include <hwloc.h>

#include "base/error.h"

namespace nibble {

namespace {

using Bitmap = std::unique_ptr<hwloc_bitmap_s, decltype(&hwloc_bitmap_free)>;

std::vector<std::vector<int>> read_node_processors(hwloc_topology_t topology) {
  const Bitmap left(hwloc_bitmap_alloc(), hwloc_bitmap_free), own(hwloc_bitmap_alloc(), hwloc_bitmap_free);
  if (hwloc_get_cpubind(topology, left.get(), HWLOC_CPUBIND_THREAD) != 0)
    hwloc_bitmap_copy(left.get(), hwloc_topology_get_allowed_cpuset(topology));
  std::vector<std::vector<int>> nodes;
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    hwloc_bitmap_and(own.get(), left.get(), node->cpuset);
    hwloc_bitmap_andnot(left.get(), left.get(), own.get());  // nodes of two kinds of memory may share processors
    std::vector<int> processors;
    for (int p = -1; (p = hwloc_bitmap_next(own.get(), p)) >= 0;) processors.push_back(p);
    if (!processors.empty()) nodes.push_back(std::move(processors));
  }
  return nodes;
}

}  // namespace

Topology read_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw_run_error("the machine's topology cannot be read");
  const std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)> topology(raw, hwloc_topology_destroy);
  if (hwloc_topology_load(raw) != 0) throw_run_error("the machine's topology cannot be read");

  Topology t;
  t.num_cores = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_CORE);
  t.num_processors = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_PU);
  t.num_numa_nodes = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_NUMANODE);
  t.node_processors = read_node_processors(raw);
  const hwloc_obj_t machine = hwloc_get_root_obj(raw);
  // Not hwloc's total_memory, which was half of this on a virtual machine of 24 GiB.
  t.memory_bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  const hwloc_obj_t package = hwloc_get_obj_by_type(raw, HWLOC_OBJ_PACKAGE, 0);
  for (const hwloc_obj_t object : {package, machine})
    if (object != nullptr && t.cpu_name.empty())
      if (const char* name = hwloc_obj_get_info_by_name(object, "CPUModel")) t.cpu_name = name;
  for (const hwloc_obj_type_t type : {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE})
    if (const hwloc_obj_t cache = hwloc_get_obj_by_type(raw, type, 0)) {
      t.caches.push_back({static_cast<int>(cache->attr->cache.depth), static_cast<int64_t>(cache->attr->cache.size)});
      t.last_level_cache_bytes = t.caches.back().bytes * hwloc_get_nbobjs_by_type(raw, type);
    }
  return t;
}

}  // namespace nibble
