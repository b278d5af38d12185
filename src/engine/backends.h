// The backends of this build, by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ops/backend.h"

namespace nibble {

struct BackendOptions {
  std::string name;         // empty: the best that the build and the machine have
  int num_threads = 0;      // 0: one for each processor that this process may use
  int activation_bits = 0;  // that integer kernels round to; 0: the backend's default
};

// Throws InputError for a name that this build does not have, listing those that it has, and for activation_bits that
// the backend has no kernels for.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

std::vector<std::string_view> backend_names();

}  // namespace nibble
