#include "engine/backends.h"

#include <array>

#include <fmt/ranges.h>

#include "backends/cpu/cpu_backend.h"
#ifdef NIBBLE_METAL
#include "backends/metal/metal_backend.h"
#endif
#include "backends/reference/reference_backend.h"
#include "base/error.h"
#include "base/worker_pool.h"

namespace nibble {

namespace {

struct BackendEntry {
  std::string_view name;
  std::unique_ptr<Backend> (*make)(int num_threads);
};

// The best first: where Metal is emulated, it is the last.
constexpr std::array kBackends = {
#if defined(NIBBLE_METAL) && defined(__APPLE__)
    BackendEntry{"metal", make_metal_backend},
#endif
    BackendEntry{"cpu", make_cpu_backend},
    BackendEntry{"reference", [](int) { return make_reference_backend(); }},
#if defined(NIBBLE_METAL) && !defined(__APPLE__)
    BackendEntry{"metal", make_metal_backend},
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
  if (options.name.empty()) return kBackends.front().make(num_threads);
  for (const BackendEntry& backend : kBackends)
    if (backend.name == options.name) return backend.make(num_threads);
#ifndef NIBBLE_METAL
  if (options.name == "metal")
    throw_input_error("backend metal: this build has {}; configure it with -DNIBBLE_METAL=ON to add Metal",
                      fmt::join(backend_names(), ", "));
#endif
  throw_input_error("backend {}: this build has {}", options.name, fmt::join(backend_names(), ", "));
}

}  // namespace nibble
