#include "base/topology.h"

#include <unistd.h>

#include <memory>

#include <hwloc.h>

#include "base/error.h"

namespace nibble {

Topology read_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw_run_error("the machine's topology cannot be read");
  const std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)> topology(raw, hwloc_topology_destroy);
  if (hwloc_topology_load(raw) != 0) throw_run_error("the machine's topology cannot be read");

  Topology t;
  t.num_cores = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_CORE);
  t.num_processors = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_PU);
  t.num_numa_nodes = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_NUMANODE);
  const hwloc_obj_t machine = hwloc_get_root_obj(raw);
  // Not hwloc's total_memory, which was half of this on a virtual machine of 24 GiB.
  t.memory_bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  const hwloc_obj_t package = hwloc_get_obj_by_type(raw, HWLOC_OBJ_PACKAGE, 0);
  for (const hwloc_obj_t object : {package, machine})
    if (object != nullptr && t.cpu_name.empty())
      if (const char* name = hwloc_obj_get_info_by_name(object, "CPUModel")) t.cpu_name = name;
  for (const hwloc_obj_type_t type : {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE})
    if (const hwloc_obj_t cache = hwloc_get_obj_by_type(raw, type, 0))
      t.caches.push_back({static_cast<int>(cache->attr->cache.depth), static_cast<int64_t>(cache->attr->cache.size)});
  return t;
}

}  // namespace nibble
