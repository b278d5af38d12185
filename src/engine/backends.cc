#include "engine/backends.h"

#include <array>

#include <fmt/ranges.h>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "base/error.h"
#include "base/worker_pool.h"

namespace nibble {

namespace {

struct BackendEntry {
  std::string_view name;
  std::unique_ptr<Backend> (*make)(int num_threads, int activation_bits);
};

std::unique_ptr<Backend> make_cpu(int num_threads, int activation_bits) {
  return activation_bits == 0 ? make_cpu_backend(num_threads) : make_cpu_backend(num_threads, activation_bits);
}

std::unique_ptr<Backend> make_reference(int, int activation_bits) {
  if (activation_bits != 0)
    throw_input_error(
        "activations of {} bits: the reference backend multiplies float32 activations; the backend cpu has "
        "kernels for 15 and 8",
        activation_bits);
  return make_reference_backend();
}

// The best first.
constexpr std::array kBackends = {
    BackendEntry{"cpu", make_cpu},
    BackendEntry{"reference", make_reference},
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
  throw_input_error("backend {}: this build has {}", options.name, fmt::join(backend_names(), ", "));
}

}  // namespace nibble
