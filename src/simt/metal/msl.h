// Metal Shading Language for clang: what translate.py includes before a shader's text. Host code never does.
//
// Build with -Xclang -ffloat16-excess-precision=none: each operation on halves rounds, as on a GPU.
#pragma once

#include <cfloat>

#include <climits>

#include "simt/metal/address_spaces.h"
#include "simt/metal/atomics.h"
#include "simt/metal/math.h"
#include "simt/metal/parameters.h"
#include "simt/metal/simdgroup.h"
#include "simt/metal/simdgroup_matrix.h"
#include "simt/metal/vectors.h"

namespace nibble::simt {

// Storage of a `threadgroup` variable: the lanes of a threadgroup share their OS thread, and so its thread_local.
template <class T>
struct SharedStorage {
  static constexpr size_t guard_bytes = 64;
  alignas(64) std::byte before[guard_bytes];
  alignas(T) std::byte data[sizeof(T)];  // bytes, so that no OS thread has anything to construct
  std::byte after[guard_bytes];
  SharedVariable variable;

  T& enter(Site site = Site::here()) {
    enter_shared_variable(variable, data, sizeof data, guard_bytes, site);
    return reinterpret_cast<T&>(data);
  }
};

}  // namespace nibble::simt

using metal::as_type;
using namespace metal;  // uint, half4 and the like are known without it

#define HALF_MAX half(65504)
#define M_PI_F 3.14159265358979323846f

#define kernel
#define device NIBBLE_MSL_DEVICE
#define constant NIBBLE_MSL_CONSTANT
#define threadgroup NIBBLE_MSL_THREADGROUP
#define thread

// `threadgroup T x[n];` in a kernel: the declaration has nibble_type_of_x in the place of the name. And a function constant.
#ifdef NIBBLE_MSL_CHECK
template <class T>
NIBBLE_MSL_THREADGROUP T& nibble_shared_variable();  // nothing runs: never defined
#define NIBBLE_SHARED_VARIABLE(name, ...) \
  typedef __VA_ARGS__;                    \
  NIBBLE_MSL_THREADGROUP nibble_type_of_##name& name = nibble_shared_variable<nibble_type_of_##name>()
#define NIBBLE_FUNCTION_CONSTANT extern NIBBLE_MSL_CONSTANT
#else
#define NIBBLE_SHARED_VARIABLE(name, ...)                                                                         \
  typedef __VA_ARGS__;                                                                                            \
  static constinit thread_local nibble::simt::SharedStorage<nibble_type_of_##name> nibble_storage_of_##name = {}; \
  [[maybe_unused]] nibble_type_of_##name& name = nibble_storage_of_##name.enter()
#define NIBBLE_FUNCTION_CONSTANT static
#endif
