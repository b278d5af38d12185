#include "engine/backends.h"

#include <array>
#include <charconv>
#include <cstdlib>

#include <fmt/ranges.h>

#include "backends/cpu/cpu_backend.h"
#ifdef NIBBLE_METAL
#include "backends/metal/metal_backend.h"
#endif
#include "backends/reference/reference_backend.h"
#include "base/error.h"
#include "base/topology.h"
#include "base/worker_pool.h"

namespace nibble {

namespace {

struct BackendEntry {
  std::string_view name;
  std::unique_ptr<Backend> (*make)(int num_threads, int activation_bits);
};

int64_t roof_bytes(int64_t last_level_cache_bytes) {
  const char* text = std::getenv("NIBBLE_ROOF_MB");
  if (text == nullptr) return read_roof_bytes(last_level_cache_bytes);
  constexpr int64_t kMostMb = 65536;
  const std::string_view given = text;
  int64_t mb = 0;
  const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), mb);
  if (error != std::errc() || end != given.data() + given.size() || mb < 1 || mb > kMostMb)
    throw_input_error("NIBBLE_ROOF_MB is '{}', a number from 1 to {} expected: of MB to measure the read bandwidth on",
                      given, kMostMb);
  return mb << 20;
}

std::unique_ptr<Backend> make_cpu(int num_threads, int activation_bits) {
  const Topology topology = read_topology();
  return make_cpu_backend(teams_of_nodes(topology.node_processors, num_threads),
                          activation_bits == 0 ? kActivationBits : activation_bits,
                          roof_bytes(topology.last_level_cache_bytes));
}

// For backends that multiply activations of one kind only.
void refuse_activations(std::string_view backend, std::string_view kind, int activation_bits) {
  if (activation_bits != 0)
    throw_input_error(
        "activations of {} bits: the backend {} multiplies {} activations; the backend cpu has kernels for 15 and 8 "
        "bits",
        activation_bits, backend, kind);
}

std::unique_ptr<Backend> make_reference(int, int activation_bits) {
  refuse_activations("reference", "float32", activation_bits);
  return make_reference_backend();
}

#if defined(NIBBLE_METAL)
std::unique_ptr<Backend> make_metal(int num_threads, int activation_bits) {
  refuse_activations("metal", "float32", activation_bits);
  return make_metal_backend(num_threads);
}
#endif

// The best first: where Metal is emulated, it is the last.
constexpr std::array kBackends = {
#if defined(NIBBLE_METAL) && defined(__APPLE__)
    BackendEntry{"metal", make_metal},
#endif
    BackendEntry{"cpu", make_cpu},
    BackendEntry{"reference", make_reference},
#if defined(NIBBLE_METAL) && !defined(__APPLE__)
    BackendEntry{"metal", make_metal},
#endif
};

}  // namespace

std::vector<std::string_view> backend_names() {
  std::vector<std::string_view> names;
  for (const BackendEntry& backend : kBackends) names.push_back(backend.name);
  return names;
}

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  const int num_threads = options.num_threads > 0 ? options.num_threads : default_num_threads();
  if (options.name.empty()) return kBackends.front().make(num_threads, options.activation_bits);
  for (const BackendEntry& backend : kBackends)
    if (backend.name == options.name) return backend.make(num_threads, options.activation_bits);
#ifndef NIBBLE_METAL
  if (options.name == "metal")
    throw_input_error("backend metal: this build has {}; configure it with -DNIBBLE_METAL=ON to add Metal",
                      fmt::join(backend_names(), ", "));
#endif
  throw_input_error("backend {}: this build has {}", options.name, fmt::join(backend_names(), ", "));
}

}  // namespace nibble
