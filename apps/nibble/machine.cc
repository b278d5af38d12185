// nibble machine: what this machine is, as far as decoding cares.
#include <cstdio>

#include "base/memory.h"
#include "base/topology.h"
#include "commands.h"

namespace nibble {

namespace {

void print_machine(bool json, int threads) {
  const Topology t = read_topology();
  const auto backend = make_backend({.num_threads = threads});
  backend->measure_read_gbps();  // warms the buffer
  std::vector<double> gbps;
  for (int i = 0; i < 5; i++) gbps.push_back(backend->measure_read_gbps());
  // Where there is a GPU for it, the backend metal is the best that there is, and describes itself by the GPU's name.
  std::vector<std::string> gpus;
  if (backend->name() == "metal") gpus.push_back(backend->description());
  if (json) {
    nlohmann::ordered_json out;
    out["cpu"] = t.cpu_name;
    out["cores"] = t.num_cores;
    out["processors"] = t.num_processors;
    out["numa_nodes"] = t.num_numa_nodes;
    out["caches"] = nlohmann::ordered_json::array();
    for (const auto& cache : t.caches) out["caches"].push_back({{"level", cache.level}, {"bytes", cache.bytes}});
    out["memory_bytes"] = t.memory_bytes;
    out["available_bytes"] = available_memory_bytes();
    out["backend"] = backend->name();
    out["backend_description"] = backend->description();
    out["gpus"] = gpus;
    out["roof_gbps"] = median(gbps);
    print_json(out);
    return;
  }
  fmt::print("CPU              {}\n", t.cpu_name);
  fmt::print("cores            {} ({} processors), {} NUMA node{}\n", t.num_cores, t.num_processors, t.num_numa_nodes,
             t.num_numa_nodes == 1 ? "" : "s");
  for (const auto& cache : t.caches)
    fmt::print("L{} cache         {}\n", cache.level, bytes_text(static_cast<double>(cache.bytes)));
  fmt::print("memory           {}, {} available\n", bytes_text(static_cast<double>(t.memory_bytes)),
             bytes_text(static_cast<double>(available_memory_bytes())));
  fmt::print("GPUs             {}\n", gpus.empty() ? "none that this build can use" : gpus.front());
  fmt::print("backend          {} ({})\n", backend->name(), backend->description());
  fmt::print("read bandwidth   {:.1f} GB/s (median of {} passes over memory)\n", median(gbps), gbps.size());
}

}  // namespace

void add_machine_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("machine", "Show the CPU, the instruction sets in use, caches, and the read bandwidth");
  command->footer("The read bandwidth is measured now, by all threads together: the roof of every decode step.");
  auto json = std::make_shared<bool>(false);
  auto threads = std::make_shared<int>(0);
  command->add_option("--threads", *threads, "Threads. Default, as with 0: one for each processor")
      ->envname("NIBBLE_THREADS")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--json", *json, "JSON instead of text");
  command->callback([json, threads] { print_machine(*json, *threads); });
}

}  // namespace nibble
